"""Collects the outputs of one attempt out of its sandbox, after its command has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from agent_runner.job_spec import JOB_ROOT, JobSpec
from agent_runner.outcome import OutputFile, OutputsRecord
from agent_runner.output_patterns import Patterns
from agent_runner.outputs.staging import StagedOutputs, StagingFailedError, TooLargeError
from agent_runner.outputs_spec import (
    MAX_FILES,
    MAX_NAME_BYTES,
    MAX_NAMES_BYTES,
    OutputsPlace,
    OutputsSpec,
)
from sandbox.base import Sandbox
from sandbox.collection import Collecting, Read
from sandbox.errors import SandboxError

MAX_SECONDS = 600.0
CANCELLED_SECONDS = 30.0
"""Whoever cancels a job waits for its end."""
MAX_TOLD = 10
"""Problems that are told one by one."""
MAX_ERROR_CHARS = 2000


class CollectionEndedError(Exception):
    """The collection may not go on; says why. What was collected so far is kept."""


class CollectionStoppedError(CollectionEndedError):
    """Somebody wants it to end, or it takes too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much of one attempt is kept."""

    max_bytes: int
    max_files: int

    @classmethod
    def of(cls, place: OutputsPlace, outputs: OutputsSpec) -> Bounds:
        """Return the operator's bounds, or those of a job that asks for less."""
        return cls(
            max_bytes=min(place.max_bytes, outputs.max_bytes or place.max_bytes),
            max_files=min(place.max_files, outputs.max_files or place.max_files, MAX_FILES),
        )


@dataclass(slots=True, kw_only=True)
class OutputsTaker:
    """Keeps the files that a job asked for; a ``sandbox.collection.Taker``."""

    patterns: Patterns
    bounds: Bounds
    staged: StagedOutputs
    mask: Callable[[str], str]
    """Hides secrets in a text."""
    ended: Callable[[], str]
    """Says why the collection must end, if it must; asked for each entry and each piece."""
    files: list[OutputFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """The first ``MAX_TOLD`` of them, masked."""
    problem_count: int = 0
    cut_short: bool = False
    _bytes: int = 0
    _name_bytes: int = 0
    _names: set[str] = field(default_factory=set)

    def enters(self, folder: str) -> bool:
        """Tell whether anything in a folder may be wanted."""
        self._go_on()
        return self.patterns.enter(folder)

    def wants(self, name: str) -> bool:
        """Tell whether a file is wanted."""
        self._go_on()
        return self.patterns.take(name)

    def roots(self) -> list[str]:
        """Return the paths that hold all that is wanted."""
        return self.patterns.roots()

    def link(self, name: str, target: str) -> None:
        """Refuse a link: what it leads to may be outside."""
        self.refuse(name, "is a link")

    def refuse(self, name: str, why: str) -> None:
        """Note what cannot be taken."""
        self.note(f"{_visible(name)}: {why}")

    def note(self, problem: str, *, first: bool = False) -> None:
        """Note a problem; called with names as a person can read them."""
        self.problem_count += 1
        if first:
            self.problems.insert(0, self.mask(problem))
        elif len(self.problems) < MAX_TOLD:
            self.problems.append(self.mask(problem))

    def take(self, name: str, mode: int, size: int, read: Read) -> None:
        """Keep a file, unless a bound or its name is against it."""
        if len(self.files) == self.bounds.max_files:
            raise CollectionEndedError(f"there are more than {self.bounds.max_files:,} files")
        objection = self._objection(name)
        if objection:
            self.refuse(name, objection)
            return
        room = self.bounds.max_bytes - self._bytes
        # What a file claims to hold counts, holes included, before any of it is read.
        try:
            content = self.staged.put(self._reading(read), room) if size <= room else None
        except TooLargeError:
            content = None
        except OSError as error:
            self.refuse(name, f"cannot be read: {error.strerror}")
            return
        if content is None:
            self.refuse(name, f"with it there are more than {self.bounds.max_bytes:,} bytes")
            return
        self._bytes += content.size
        self._name_bytes += len(name.encode())
        self._names.add(name)
        self.files.append(OutputFile(name, content.sha256, content.size, mode & 0o777))

    def _objection(self, name: str) -> str:
        """Say what is wrong with a name; it is recorded, and files are made by it later."""
        try:
            length = len(name.encode())
        except UnicodeEncodeError:
            return "its name is not UTF-8"
        if {"", ".", ".."} & set(name.split("/")):
            return "its name is no path below the folder"
        if name in self._names:
            # A folder that is changed while it is read can name a file again, and the server takes each name once.
            return "it came a second time"
        if length > MAX_NAME_BYTES:
            return f"its name is longer than {MAX_NAME_BYTES} bytes"
        if self._name_bytes + length > MAX_NAMES_BYTES:
            return "the names of all outputs are too long together"
        return "its name holds a secret" if self.mask(name) != name else ""

    def _reading(self, read: Read) -> Read:
        def guarded(count: int) -> bytes:
            self._go_on()
            return read(count)

        return guarded

    def _go_on(self) -> None:
        why = self.ended()
        if why:
            raise CollectionStoppedError(why)


def deadline(seconds: float, stopped: Callable[[], bool]) -> Callable[[], str]:
    """Return what says why a collection must end: it is asked for the end, or took its time."""
    end = time.monotonic() + seconds

    def ended() -> str:
        if stopped():
            return "the attempt was stopped while they were collected"
        return "they took too long to collect" if time.monotonic() > end else ""

    return ended


async def collect(sandbox: Sandbox, spec: JobSpec, taker: OutputsTaker) -> OutputsRecord:
    """Collect what a job asks for; called once per attempt that has outputs and whose command has run.

    Whatever goes wrong is in the record. A pattern that no file matches is no problem of the record: a failed command
    often has not come so far.
    """
    if not isinstance(sandbox, Collecting):
        return OutputsRecord(error=f"sandboxes of the kind {sandbox.info.kind} give no files out")
    path = str(PurePosixPath(spec.code_dir).relative_to(JOB_ROOT))
    try:
        await sandbox.collect("" if path == "." else path, taker)
    except (CollectionEndedError, SandboxError) as error:
        taker.cut_short = isinstance(error, CollectionStoppedError)
        taker.note(f"the rest is left out: {error}", first=True)
    except OSError as error:
        taker.note(f"the rest is left out: it cannot be read: {error.strerror}", first=True)
    except StagingFailedError as error:
        # The end of the attempt needs the room more.
        taker.staged.remove()
        return OutputsRecord(error=f"the agent-runner's disk does not take them: {error}")
    return OutputsRecord(files=tuple(sorted(taker.files)), error=_summary(taker))


def _summary(taker: OutputsTaker) -> str:
    more = taker.problem_count - len(taker.problems)
    text = "; ".join(taker.problems) + (f"; and {more} more" if more else "")
    return text if len(text) <= MAX_ERROR_CHARS else text[:MAX_ERROR_CHARS] + "…"


def _visible(name: str) -> str:
    """Return a name on one line: control characters and bytes that are no characters as escapes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in name)
