"""Reads the text of a job file, and of the files laid over it, from where the user named them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from daemon.errors import UsageError

if TYPE_CHECKING:
    from agent_runner.job_spec import JobSpec

MAX_JOB_FILE_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class JobDocument:
    """The text of a job file, unread."""

    name: str
    """As the user typed it; stands in error messages."""
    content: bytes
    base_dir: Path
    """Where relative paths in the file start."""


@dataclass(frozen=True, slots=True)
class Overlays:
    """What is laid over a job file."""

    documents: Sequence[JobDocument]
    allow_secret_overrides: bool

    def question(self, document: JobDocument) -> Iterator[bytes]:
        """Return all that decides which job a file with these laid over it is, for ``run-local``."""
        yield b"%d" % self.allow_secret_overrides
        for each in (document, *self.documents):
            yield from (os.fsencode(each.name), os.fsencode(each.base_dir), each.content)

    def load(self, document: JobDocument, *, to_run_here: bool = False) -> JobSpec:
        """Return the job of a file with these laid over it. Imports pydantic and a YAML parser.

        Raises:
            InvalidJobFileError: It is none.
        """
        from daemon.jobfile.loader import load_job_file  # noqa: PLC0415
        from daemon.jobfile.overlay import Overlay  # noqa: PLC0415

        return load_job_file(
            document.content,
            document.name,
            document.base_dir,
            overlays=[Overlay(each.name, each.content, each.base_dir) for each in self.documents],
            allow_secret_overrides=self.allow_secret_overrides,
            to_run_here=to_run_here,
        )


def overlay_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--input`` and ``--allow-secret-overrides``, read, as ``overlays``."""

    @click.option(
        "--input",
        "inputs",
        metavar="FILE",
        multiple=True,
        help="Lay FILE over the job file: what it says replaces, mappings are merged. May be repeated; the last one wins.",
    )
    @click.option(
        "--allow-secret-overrides",
        is_flag=True,
        help="Let --input replace a secret reference by plain text.",
    )
    @wraps(command)
    def with_overlays(
        *args: Any, inputs: Sequence[str], allow_secret_overrides: bool, **kwargs: Any
    ) -> Any:
        documents = [read_job_file(name) for name in inputs]
        return command(*args, overlays=Overlays(documents, allow_secret_overrides), **kwargs)

    return with_overlays


def read_job_file(name: str) -> JobDocument:
    """Return the text of a job file; ``-`` is standard input.

    Raises:
        UsageError: It cannot be read, or is larger than any job file.
    """
    try:
        if name == "-":
            content = sys.stdin.buffer.read(MAX_JOB_FILE_BYTES + 1)
            document = JobDocument("stdin", content, Path.cwd())
        else:
            path = Path(name)
            with path.open("rb") as file:
                content = file.read(MAX_JOB_FILE_BYTES + 1)
            document = JobDocument(name, content, path.absolute().parent)
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from error
    if len(content) > MAX_JOB_FILE_BYTES:
        raise UsageError(f"{name} is larger than a job file may be (256 KiB)")
    return document
