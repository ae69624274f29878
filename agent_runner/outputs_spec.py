"""What ``outputs`` of a job asks for, and its rules. Leaf module beside ``job_spec``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agent_runner.errors import InvalidJobSpecError

MAX_FILES = 10_000
"""Of one attempt, whatever anybody says: their list travels in one message."""
MAX_NAME_BYTES = 512
MAX_NAMES_BYTES = 512 << 10
"""All names of one attempt together."""
MAX_BYTES = 1 << 50


class OutputsPlace(NamedTuple):
    """Where the outputs of an attempt are put, and what the operator allows."""

    folder: Path
    max_bytes: int = 2 << 30
    max_files: int = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsSpec:
    """Which files are kept after an attempt."""

    paths: tuple[str, ...] = ()
    """Patterns below ``code_dir``; see ``output_patterns``."""
    max_bytes: int = 0
    """Of all files together; 0 leaves the operator's bound."""
    max_files: int = 0
    """How many; 0 leaves the operator's bound."""


def check_outputs(outputs: OutputsSpec) -> None:
    """Check the rules; called by ``JobSpec.validate``.

    Raises:
        InvalidJobSpecError: The first rule that is broken.
    """
    for name, value, most in (
        ("outputs.max_size", outputs.max_bytes, MAX_BYTES),
        ("outputs.max_files", outputs.max_files, MAX_FILES),
    ):
        if not 0 <= value <= most:
            raise InvalidJobSpecError(name, f"must lie between 0 and {most}")
    if not outputs.paths:
        return
    # Every command line that submits a job imports this module, and few jobs have outputs.
    from agent_runner.output_patterns import MAX_PATTERNS, parse  # noqa: PLC0415

    if len(outputs.paths) > MAX_PATTERNS:
        raise InvalidJobSpecError("outputs.paths", f"holds more than {MAX_PATTERNS} patterns")
    for position, text in enumerate(outputs.paths):
        try:
            text.encode()
            parse(text)
        except UnicodeEncodeError:
            raise InvalidJobSpecError(f"outputs.paths.{position}", "is not valid Unicode") from None
        except ValueError as error:
            raise InvalidJobSpecError(f"outputs.paths.{position}", str(error)) from None
    if outputs.paths[0].startswith("!"):
        raise InvalidJobSpecError(
            "outputs.paths.0", "takes files out, but nothing before it asks for any"
        )
