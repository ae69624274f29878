"""Collects secret values: the environment first, then the person at the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from daemon.errors import SecretNeededError, UsageError
from daemon.secrets.values import SecretValue, WantedSecret

MAX_TRIES = 3
"""How often a required secret is asked for."""

Ask = Callable[[str], str | None]
"""Shows a label and returns what was typed; None when it was skipped."""

Say = Callable[[str], None]


def gather(
    wanted: Iterable[WantedSecret], environ: Mapping[str, str], ask: Ask | None, say: Say
) -> dict[str, SecretValue]:
    """Return the values that could be found, by name, in the order of ``wanted``.

    Called once per start, before any process exists.

    Args:
        wanted: What to look for.
        environ: The caller's environment; an empty variable counts as unset.
        ask: The prompt, or None where nobody can be asked.
        say: Prints one line for the person; never gets a value.

    Raises:
        SecretNeededError: Required secrets have no value; names all that are known to be missing.
        UsageError: A variable holds what no process can be given; names it.
        Interrupted: The person pressed Ctrl-C at the prompt.
    """
    secrets = list(wanted)
    found = {
        secret.name: _checked(secret.name, environ[secret.name])
        for secret in secrets
        if environ.get(secret.name)
    }
    missing = [secret for secret in secrets if secret.name not in found]
    needed = [secret.name for secret in missing if secret.required]
    if needed and ask is None:
        raise _needed(needed)
    for secret in missing:
        value = _ask_for(secret, ask, say) if ask else None
        if value is not None:
            found[secret.name] = SecretValue(value)
        else:
            say(
                f"{secret.name}: not set; skipped "
                f"(jobs that use ${{secret:local:{secret.name}}} will not run)"
            )
    return {secret.name: found[secret.name] for secret in secrets if secret.name in found}


def _ask_for(secret: WantedSecret, ask: Ask, say: Say) -> str | None:
    """Ask until there is a usable value; None when an optional secret is skipped."""
    hint = "required" if secret.required else "Enter skips"
    what = secret.description or "Secret"
    label = f"{what} ({secret.name}; kept in memory only; {hint}): "
    for _ in range(MAX_TRIES):
        value = ask(label)
        if not value:
            if not secret.required:
                return None
            say(f"{secret.name}: a value is required")
        elif problem := _problem(secret.name, value):
            say(f"{secret.name}: the value {problem}")
        else:
            return value
    if secret.required:
        raise _needed([secret.name])
    return None


def _checked(name: str, value: str) -> SecretValue:
    problem = _problem(name, value)
    if problem:
        raise UsageError(f"{name}: the value in the environment {problem}; set another or unset it")
    return SecretValue(value)


def _problem(name: str, value: str) -> str:
    """Return why a value cannot be handed to a job; empty when it can."""
    from agent_runner.job_spec import MAX_ENV_VALUE_BYTES  # noqa: PLC0415 - only where there is a value

    if "\0" in value:
        return "holds a NUL byte, which no variable can carry"
    try:
        size = len(name) + len(value.encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if size > MAX_ENV_VALUE_BYTES:
        return f"is longer than a variable can be ({MAX_ENV_VALUE_BYTES:,} bytes)"
    return ""


def _needed(names: list[str]) -> SecretNeededError:
    variables = "the environment variable" if len(names) == 1 else "environment variables"
    return SecretNeededError(
        f"no value for {', '.join(names)}: set {variables} {', '.join(names)}, "
        "or run this in a terminal, which asks for it"
    )
