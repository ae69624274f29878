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
MAX_KEY_CHARS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSpec:
    """What the result of a job depends on, beside its definition."""

    inputs: tuple[str, ...] = ()
    """Patterns below ``code_dir``; empty means everything but ``.git``."""
    key: str = ""
    """Any text."""


class OutputsPlace(NamedTuple):
    """Where the outputs of an attempt are put, and what the operator allows."""

    folder: Path
    max_bytes: int = 2 << 30
    max_files: int = 2000
    cache_dir: Path | None = None
    """Where results are kept; None where no result is to be used again."""


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
    _check_patterns("outputs.paths", outputs.paths)


def check_cache(cache: CacheSpec) -> None:
    """Check the rules; called by ``JobSpec.validate``.

    Raises:
        InvalidJobSpecError: The first rule that is broken.
    """
    if cache.inputs:
        _check_patterns("cache.inputs", cache.inputs)
    if len(cache.key) > MAX_KEY_CHARS:
        raise InvalidJobSpecError("cache.key", f"is longer than {MAX_KEY_CHARS} characters")


def _check_patterns(field: str, patterns: tuple[str, ...]) -> None:
    # Every command line that submits a job imports this module, and few jobs have outputs.
    from agent_runner.output_patterns import MAX_PATTERNS, parse  # noqa: PLC0415

    if len(patterns) > MAX_PATTERNS:
        raise InvalidJobSpecError(field, f"holds more than {MAX_PATTERNS} patterns")
    for position, text in enumerate(patterns):
        try:
            text.encode()
            parse(text)
        except UnicodeEncodeError:
            raise InvalidJobSpecError(f"{field}.{position}", "is not valid Unicode") from None
        except ValueError as error:
            raise InvalidJobSpecError(f"{field}.{position}", str(error)) from None
    if patterns[0].startswith("!"):
        raise InvalidJobSpecError(
            f"{field}.0", "takes files out, but nothing before it asks for any"
        )
