"""Secret references in a job's environment: ``${secret:path:key}``, and ``$${secret:`` for the text.

References are read in values of ``env`` only, filled in once, at spawn, and never a second time:
a value that looks like a reference stays what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from agent_runner.errors import InvalidJobSpecError, SecretMissingError
from agent_runner.job_spec import MAX_ENV_VALUE_BYTES, JobSpec, SourceSpec
from agent_runner.secret_names import KEY, PATH

LOCAL_PATH = "local"
"""The path of what `runner local start` gathered, or `run-local` took from its caller; in the store beneath that."""

_OPENING = re.compile(r"\$?\$\{secret:")
_REFERENCE = re.compile(rf"\$\{{secret:({PATH.pattern}):({KEY.pattern})\}}")
_NUMBER = re.compile(r"-?[0-9]+")


class SecretRef(NamedTuple):
    """The name of a secret value; holds no value."""

    path: str
    key: str

    def __str__(self) -> str:
        return f"${{secret:{self.path}:{self.key}}}"


SecretValues = Mapping[SecretRef, str]
"""Only what stands in here can be referenced."""


def check_refs(spec: JobSpec) -> None:
    """Refuse references that are malformed, and references anywhere but in values of ``env``.

    Called at each submit and by ``run-local``, so that a job is not accepted with them.

    Raises:
        InvalidJobSpecError: Names the field, not its text.
    """
    refs_of(spec)
    _refuse("name", spec.name)
    _refuse("job_command", *spec.argv)
    for prefix, source in _sources(spec):
        _refuse(f"{prefix}_path", source.path)
        _refuse(f"{prefix}_url", source.url)
        _refuse(f"{prefix}_ref", source.ref)
        if source.credentials and not _references(f"{prefix}_credentials", source.credentials):
            problem = "must hold a secret reference, ${secret:path:key}; a value would be in the job's record"
            raise InvalidJobSpecError(f"{prefix}_credentials", problem)
    _refuse("container_image", spec.container_image)
    _refuse("code_dir", spec.code_dir)
    _refuse("job_dir", spec.job_dir)
    if spec.labels:
        _refuse("labels", *spec.labels, *spec.labels.values())
    if spec.concurrency:
        _refuse("concurrency", spec.concurrency.group)


def refs_of(spec: JobSpec) -> list[SecretRef]:
    """Return the distinct references of a job: those of its environment, then those of its sources' credentials.

    Called at submit, and once per attempt.

    Raises:
        InvalidJobSpecError: A reference is malformed; names the field, not its text.
    """
    found = dict.fromkeys(find_refs(spec.env))
    if not spec.has_material:  # as most
        return list(found)
    for prefix, source in _sources(spec):
        if source.credentials:
            found |= dict.fromkeys(_references(f"{prefix}_credentials", source.credentials))
    return list(found)


def _sources(spec: JobSpec) -> list[tuple[str, SourceSpec]]:
    """Return the sources that a job has, by the prefix of their fields."""
    both = (("source", spec.source), ("ci_source", spec.ci_source))
    return [(prefix, source) for prefix, source in both if source.kind != "none"]


def _references(field: str, text: str) -> list[SecretRef]:
    return [part for part in _parts(field, text) if isinstance(part, SecretRef)]


def _refuse(field: str, *texts: str) -> None:
    for text in texts:
        if "${secret:" in text and any(map(_is_meant, _REFERENCE.finditer(text))):
            problem = (
                "holds a secret reference, which would show the value in `ps` and in the job's record; "
                "references are filled in in env only: put it there and use the variable"
            )
            raise InvalidJobSpecError(field, problem)


def _is_meant(match: re.Match[str]) -> bool:
    """Tell a reference from an escaped one, and from a shell's ``${secret:0:4}``, a part of $secret."""
    escaped = match.string[: match.start()].endswith("$")
    return not escaped and not all(_NUMBER.fullmatch(part) for part in match.groups())


def find_refs(env: Mapping[str, str]) -> list[SecretRef]:
    """Return the distinct references of an environment in the order in which they stand there.

    Called at submit, so that a malformed reference is refused before the job is accepted.

    Raises:
        InvalidJobSpecError: A reference is malformed; names the variable, not its text.
    """
    found: dict[SecretRef, None] = {}
    for name, value in env.items():
        if "${secret:" in value:
            found |= dict.fromkeys(_references(f"env.{name}", value))
    return list(found)


def resolve(
    env: Mapping[str, str], values: Mapping[SecretRef, str], why_missing: str = ""
) -> dict[str, str]:
    """Return the environment with every reference replaced by its value.

    Called once per attempt, right before the command is started.

    Args:
        env: Variables as the job file has them.
        values: Secret values by reference.
        why_missing: What to do where the store has no value; by default how to put one in.

    Raises:
        InvalidJobSpecError: A reference is malformed, or a finished variable cannot be passed on.
        SecretMissingError: At least one reference has no value; names all of them.
    """
    require(find_refs(env), values, why_missing)
    return {name: fill(f"env.{name}", value, values) for name, value in env.items()}


def require(refs: Sequence[SecretRef], values: SecretValues, why_missing: str = "") -> None:
    """Check that references have values.

    Raises:
        SecretMissingError: At least one has none; names all of them.
    """
    missing = [ref for ref in refs if ref not in values]
    if missing:
        raise SecretMissingError(_missing_text(missing, why_missing))


def source_credentials(spec: JobSpec, values: SecretValues) -> dict[str, str]:
    """Return the credentials of a job's sources, filled in, by field; called once per attempt.

    Raises:
        InvalidJobSpecError: As ``fill``.
    """
    fields = {f"{prefix}_credentials": source.credentials for prefix, source in _sources(spec)}
    return {field: fill(field, text, values) for field, text in fields.items() if text}


def fill(field: str, value: str, values: SecretValues) -> str:
    """Return a text with its references replaced by their values, all of which are known.

    Raises:
        InvalidJobSpecError: A reference is malformed, or the whole cannot be passed on; names the field.
    """
    parts = list(_parts(field, value))
    filled = "".join(values[part] if isinstance(part, SecretRef) else part for part in parts)
    refs = ", ".join(dict.fromkeys(str(part) for part in parts if isinstance(part, SecretRef)))
    if "\0" in filled:
        raise InvalidJobSpecError(field, f"holds a NUL byte once {refs} is filled in")
    if len(field) + len(filled.encode("utf-8", "surrogatepass")) > MAX_ENV_VALUE_BYTES:
        most = f"{MAX_ENV_VALUE_BYTES:,} bytes"
        problem = f"is longer than a variable can be ({most}) once {refs or 'it'} is filled in"
        raise InvalidJobSpecError(field, problem)
    return filled


def _parts(field: str, value: str) -> Iterator[str | SecretRef]:
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
            raise InvalidJobSpecError(field, "holds a secret reference without its '}'")
        yield _ref(field, value[opening.end() : end])
        position = end + 1
    yield value[position:]


def _ref(field: str, body: str) -> SecretRef:
    path, _, key = body.partition(":")
    if not PATH.fullmatch(path) or not KEY.fullmatch(key):
        problem = (
            "holds a malformed secret reference; expected ${secret:path:key} with letters, digits, "
            "'_' and '-' (and '/' in the path), or $${secret: for the text itself"
        )
        raise InvalidJobSpecError(field, problem)
    return SecretRef(path, key)


def _missing_text(missing: list[SecretRef], why: str) -> str:
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
        how = why or "`runner secrets set PATH KEY` puts a value into the store"
        texts.append(f"no value for {', '.join(map(str, other))}: {how}")
    elif why:
        texts.append(why)
    return "; ".join(texts)
