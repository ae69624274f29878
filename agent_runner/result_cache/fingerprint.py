"""What the result of a job depends on, part by part: equal parts mean an equal result.

A fingerprint holds digests, names of files and of variables, and no value: a reference to a secret counts as the reference.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent_runner.job_spec import JobSpec
from agent_runner.output_patterns import Patterns
from sandbox.base import SandboxInfo
from sandbox.collection import Read

VERSION = 1
"""Of fingerprints: a later one must not take a result of an earlier one for its own."""
MAX_NAMED = 3
"""Differences of one part that are named."""
_PIECE_BYTES = 1 << 20
_UNDECIDING = frozenset(
    {
        "name",
        "env",
        "labels",
        "priority",
        "retries",
        "concurrency",
        "depends_on",
        "inputs",
        "not_before_us",
        "max_attempts",
        "condition",
        "project",
        "outputs",
        "cache",
    }
)
"""Fields of a specification that say when and where a job runs, or that are parts of their own."""
_UNDECIDING_INSIDE = {
    "source": frozenset({"path"}),  # the job cannot see where its copy is from
    "ci_source": frozenset({"path"}),
    "sandbox": frozenset(
        {"kind", "min", "fallback", "require", "reuse"}
    ),  # what it really got counts
}

Parts = dict[str, dict[str, str]]
"""Names of parts; in each, names of what it consists of, and a digest or text."""


@dataclass(slots=True)
class TreeDigest:
    """Digests the files of a folder of a sandbox; a ``sandbox.collection.Taker``."""

    patterns: Patterns | None
    """None for everything but ``.git``."""
    ended: Callable[[], str]
    """Says why it must end, if it must."""
    files: dict[str, str] = field(default_factory=dict)

    def enters(self, folder: str) -> bool:
        """Tell whether a folder counts."""
        if self.patterns is not None:
            return self.patterns.enter(folder)
        return folder.rpartition("/")[2] != ".git"

    def wants(self, name: str) -> bool:
        """Tell whether a file counts."""
        self._go_on()
        if self.patterns is not None:
            return self.patterns.take(name)
        return ".git" not in name.split("/")

    def take(self, name: str, mode: int, size: int, read: Read) -> None:
        """Digest a file; of its mode only whether it can be executed counts."""
        digest = hashlib.sha256()
        while piece := read(_PIECE_BYTES):
            self._go_on()
            digest.update(piece)
        self.files[_plain(name)] = f"{'x' if mode & 0o100 else '-'} {digest.hexdigest()}"

    def link(self, name: str, target: str) -> None:
        """Note where a link leads."""
        self.files[_plain(name)] = f"link {_plain(target)}"

    def refuse(self, name: str, why: str) -> None:
        """Note what cannot be read."""
        self.files[_plain(name)] = why

    def roots(self) -> list[str]:
        """Return the paths that hold all that counts."""
        return [""] if self.patterns is None else self.patterns.roots()

    def _go_on(self) -> None:
        why = self.ended()
        if why:
            raise FingerprintEndedError(why)


class FingerprintEndedError(Exception):
    """The inputs cannot be digested now; says why."""


def parts_of(spec: JobSpec, info: SandboxInfo, inputs: Mapping[str, str], version: str) -> Parts:
    """Return what the result of a job depends on.

    Args:
        spec: The job.
        info: The sandbox that it runs in.
        inputs: The digests of its files, by name.
        version: Of this program.
    """
    definition = {
        name: _sha256(_deciding(value, _UNDECIDING_INSIDE[name]))
        if name in _UNDECIDING_INSIDE
        else _sha256(value)
        for name, value in asdict(spec).items()
        if name not in _UNDECIDING
    }
    return {
        "definition": definition | {"outputs": _sha256(spec.outputs.paths)},
        "inputs": dict(inputs),
        "environment": {name: _sha256(text) for name, text in spec.env.items()},
        "key": {"key": spec.cache.key if spec.cache else ""},
        "sandbox": {"kind": info.kind, "tier": info.tier.label, "system": _system(info)},
        "image": {"image": info.image},
        "runner": {"version": version, "fingerprint": str(VERSION)},
    }


def digest_of(parts: Parts) -> str:
    """Return the digest of all parts."""
    return _sha256(parts)


def differences(before: Parts, now: Parts) -> Iterator[str]:
    """Yield what differs, for a person: the parts, and of each some names."""
    for part in now:
        old, new = before.get(part, {}), now[part]
        names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
        if not names:
            continue
        if names == [part]:
            yield part
            continue
        more = len(names) - MAX_NAMED
        shown = ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
        yield f"{part} ({shown})"


def _deciding(value: Mapping[str, Any], undeciding: frozenset[str]) -> dict[str, Any]:
    return {name: each for name, each in value.items() if name not in undeciding}


def _system(info: SandboxInfo) -> str:
    """Return what a command finds around it where it sees the programs of the host."""
    machine = os.uname().machine
    if info.image:
        return machine
    try:
        return f"{machine} {_sha256(Path('/etc/os-release').read_text(errors='replace'))}"
    except OSError:
        return machine


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plain(name: str) -> str:
    """Return a name that can be written as text."""
    return name.encode("utf-8", "backslashreplace").decode()
