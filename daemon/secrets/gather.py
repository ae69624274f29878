"""Collects secret values: the environment, the secret store, the keyring, and last the person at the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from daemon.errors import SecretNeededError, UsageError
from daemon.secrets.values import GatheredSecret, SecretOrigin, SecretValue, WantedSecret

MAX_TRIES = 3
"""How often a required secret is asked for."""

Ask = Callable[[str], str | None]
"""Shows a label and returns what was typed; None when it was skipped."""

Look = Callable[[str], str | None]
"""Returns the value of a name; None or empty if it has none."""

Say = Callable[[str], None]

_OTHER_SHAPES = {"ANTHROPIC_API_KEY": r"sk_|\w+://|.*\s"}
"""What is typed in the place of a well-known key, when it is not that key."""


class SecretSources(NamedTuple):
    """Where values are looked for, in this order. A source that is None is not there."""

    environ: Mapping[str, str]
    """An empty variable counts as unset."""
    store: Look | None = None
    """Of the path ``local`` of the secret store, which is unlocked."""
    keyring: Look | None = None
    """Never raises for what a keyring does."""
    ask: Ask | None = None
    """The prompt, where somebody can be asked."""


def gather(
    wanted: Iterable[WantedSecret], sources: SecretSources, say: Say
) -> dict[str, GatheredSecret]:
    """Return the values that could be found, by name, in the order of ``wanted``.

    Called once per start, before any process exists.

    Args:
        wanted: What to look for.
        sources: Where.
        say: Prints one line for the person; never gets a value.

    Raises:
        SecretNeededError: Required secrets have no value; names all that are known to be missing.
        UsageError: A source has a value that no process can be given; names it.
        Interrupted: The person pressed Ctrl-C at the prompt.
    """
    secrets = list(wanted)
    found = look_up([secret.name for secret in secrets], sources)
    missing = [secret for secret in secrets if secret.name not in found]
    needed = [secret.name for secret in missing if secret.required]
    if needed and sources.ask is None:
        raise _needed(needed)
    for secret in missing:
        value = ask_for(secret, sources.ask, say) if sources.ask else None
        if value is not None:
            found[secret.name] = GatheredSecret(SecretValue(value), SecretOrigin.TYPED)
        else:
            say(
                f"{secret.name}: not set; skipped "
                f"(jobs that use ${{secret:local:{secret.name}}} will not run)"
            )
    return {secret.name: found[secret.name] for secret in secrets if secret.name in found}


def look_up(names: Sequence[str], sources: SecretSources) -> dict[str, GatheredSecret]:
    """Return the values that are found without asking anybody, by name.

    Raises:
        UsageError: A source has a value that no process can be given; names it.
    """
    looks = (
        (SecretOrigin.ENVIRONMENT, sources.environ.get),
        (SecretOrigin.STORE, sources.store),
        (SecretOrigin.KEYRING, sources.keyring),
    )
    found = {}
    for name in names:
        for origin, look in looks:
            value = look(name) if look is not None else None
            if value:
                _check(name, value, origin)
                found[name] = GatheredSecret(SecretValue(value), origin)
                break
    return found


def ask_for(secret: WantedSecret, ask: Ask, say: Say) -> str | None:
    """Ask until there is a usable value; None when an optional secret is skipped.

    Raises:
        SecretNeededError: A required one was not given after several tries.
        Interrupted: The person pressed Ctrl-C.
    """
    hint = "required" if secret.required else "Enter skips"
    what = secret.description or "Secret"
    label = f"{what} ({secret.name}; {secret.kept}; {hint}): "
    for _ in range(MAX_TRIES):
        value = _trimmed(secret.name, ask(label), say)
        if not value:
            if not secret.required:
                return None
            say(f"{secret.name}: a value is required")
        elif problem := _problem(secret.name, value):
            say(f"{secret.name}: the value {problem}")
        elif _is_meant(secret, value, ask):
            return value
    if secret.required:
        raise _needed([secret.name])
    return None


def _trimmed(name: str, typed: str | None, say: Say) -> str:
    """Return what was typed without the blanks that a paste brings along."""
    if typed is None:
        return ""
    value = typed.strip()
    if value != typed:
        say(f"{name}: blanks around the value were removed")
    return value


def _is_meant(secret: WantedSecret, value: str, ask: Ask) -> bool:
    """Ask again where something else was pasted than what is meant; the text is not repeated."""
    shape = _OTHER_SHAPES.get(secret.name)
    if shape is None or not re.match(shape, value):
        return True
    what = secret.description or secret.name
    answer = ask(f"{secret.name}: this does not look like an {what}. Use it all the same? [y/N]: ")
    return (answer or "").strip().lower() in ("y", "yes")


def _check(name: str, value: str, origin: SecretOrigin) -> None:
    problem = _problem(name, value)
    if problem:
        raise UsageError(f"{name}: the value in {origin} {problem}; set another or unset it")


def _problem(name: str, value: str) -> str:
    """Return why a value cannot be handed to a job; empty when it can."""
    from daemon.secrets.usable import problem_of  # noqa: PLC0415 - only where there is a value

    return problem_of(value, name)


def _needed(names: list[str]) -> SecretNeededError:
    variables = "the environment variable" if len(names) == 1 else "environment variables"
    return SecretNeededError(
        f"no value for {', '.join(names)}: set {variables} {', '.join(names)}, "
        "or run this in a terminal, which asks for it"
    )
