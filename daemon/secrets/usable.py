"""What a job's variable can carry."""

from __future__ import annotations

from agent_runner.job_spec import MAX_ENV_VALUE_BYTES


def problem_of(value: str | None, name: str = "") -> str:
    """Return why no variable can carry a value; empty when one can.

    Args:
        value: The text; None for a value that is none.
        name: The variable's, which counts to the length.
    """
    if value is None:
        return "is no text, which a variable has to be"
    if "\0" in value:
        return "holds a NUL byte, which no variable can carry"
    try:
        size = len(name) + len(value.encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if size > MAX_ENV_VALUE_BYTES:
        return f"is longer than a variable can be ({MAX_ENV_VALUE_BYTES:,} bytes)"
    return ""
