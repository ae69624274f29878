"""Secret references in a job's environment: ``${secret:path:key}``, and ``$${secret:`` for the text.

References are read in values of ``env`` only, filled in once, at spawn, and never a second time:
a value that looks like a reference stays what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent_runner.errors import InvalidJobSpecError, SecretMissingError
from agent_runner.job_spec import MAX_ENV_VALUE_BYTES

LOCAL_PATH = "local"
"""The path of what `runner local start` gathered, or `run-local` took from its caller."""

_OPENING = re.compile(r"\$?\$\{secret:")
_PATH = re.compile(r"[A-Za-z0-9_-]{1,64}(?:/[A-Za-z0-9_-]{1,64}){0,7}")
_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True, order=True)
class SecretRef:
    """The name of a secret value; holds no value."""

    path: str
    key: str

    def __str__(self) -> str:
        return f"${{secret:{self.path}:{self.key}}}"


def find_refs(env: Mapping[str, str]) -> list[SecretRef]:
    """Return the distinct references of an environment in the order in which they stand there.

    Called at submit, so that a malformed reference is refused before the job is accepted.

    Raises:
        InvalidJobSpecError: A reference is malformed; names the variable, not its text.
    """
    found: dict[SecretRef, None] = {}
    for name, value in env.items():
        for part in _parts(name, value):
            if isinstance(part, SecretRef):
                found[part] = None
    return list(found)


def resolve(env: Mapping[str, str], values: Mapping[tuple[str, str], str]) -> dict[str, str]:
    """Return the environment with every reference replaced by its value.

    Called once per attempt, right before the command is started.

    Args:
        env: Variables as the job file has them.
        values: Secret values by path and key.

    Raises:
        InvalidJobSpecError: A reference is malformed, or a finished variable cannot be passed on.
        SecretMissingError: At least one reference has no value; names all of them.
    """
    missing = [ref for ref in find_refs(env) if (ref.path, ref.key) not in values]
    if missing:
        raise SecretMissingError(_missing_text(missing))
    return {name: _fill(name, value, values) for name, value in env.items()}


def _fill(name: str, value: str, values: Mapping[tuple[str, str], str]) -> str:
    filled = "".join(
        values[part.path, part.key] if isinstance(part, SecretRef) else part
        for part in _parts(name, value)
    )
    if "\0" in filled:
        raise InvalidJobSpecError(f"env.{name}", "holds a NUL byte once its secrets are filled in")
    if len(name) + len(filled.encode("utf-8", "surrogatepass")) > MAX_ENV_VALUE_BYTES:
        problem = "is longer than a variable can be (131,000 bytes) once its secrets are filled in"
        raise InvalidJobSpecError(f"env.{name}", problem)
    return filled


def _parts(name: str, value: str) -> Iterator[str | SecretRef]:
    """Yield the literal text and the references of a value in order."""
    position = 0
    while opening := _OPENING.search(value, position):
        yield value[position : opening.start()]
        if opening.group().startswith("$$"):
            yield opening.group()[1:]
            position = opening.end()
            continue
        end = value.find("}", opening.end())
        if end < 0:
            raise InvalidJobSpecError(f"env.{name}", "holds a secret reference without its '}'")
        yield _ref(name, value[opening.end() : end])
        position = end + 1
    yield value[position:]


def _ref(name: str, body: str) -> SecretRef:
    path, _, key = body.partition(":")
    if not _PATH.fullmatch(path) or not _KEY.fullmatch(key):
        problem = (
            "holds a malformed secret reference; expected ${secret:path:key} with letters, digits, "
            "'_' and '-' (and '/' in the path), or $${secret: for the text itself"
        )
        raise InvalidJobSpecError(f"env.{name}", problem)
    return SecretRef(path, key)


def _missing_text(missing: list[SecretRef]) -> str:
    local = [ref for ref in missing if ref.path == LOCAL_PATH]
    other = [ref for ref in missing if ref.path != LOCAL_PATH]
    texts = []
    if local:
        flags = " ".join(f"--secret {ref.key}" for ref in local)
        texts.append(
            f"no value for {', '.join(map(str, local))}: start with `runner local start {flags}`, or "
            f"set {', '.join(ref.key for ref in local)} in the environment of `runner run-local`"
        )
    if other:
        texts.append(
            f"no value for {', '.join(map(str, other))}: the secret store is not available in this "
            "version yet; use ${secret:local:NAME}"
        )
    return "; ".join(texts)
