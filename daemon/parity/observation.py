"""What was seen of one run of a job in one kind of sandbox. Values of variables are seen by nobody here, only their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sandbox.base import ExecRequest, Sandbox
from sandbox.errors import SandboxError

LOOK_S = 300.0
MAX_LOOK_BYTES = 64 << 20
"""Of what one look prints; a tree of half a million files."""
MISSING = "absent"

TREE = r"""cd "$1" || exit 1
exec 2>/dev/null
for p in find sha256sum sed readlink; do command -v "$p" >/dev/null || exit 1; done
find . -name .git -prune -o -type f -exec sha256sum {} + | sed 's/^/F /'
find . -name .git -prune -o -type f -perm -0100 -print | sed 's/^/X /'
find . -name .git -prune -o -type l -exec sh -c 'for l; do printf "L %s -> %s\n" "$l" "$(readlink "$l")"; done' sh {} +
find . -name .git -prune -o -type d -print | sed 's/^/D /'
"""
"""Prints a line for each entry below a folder. What git keeps for itself is left out: its index holds times and inodes."""
_DIGEST_CHARS = 64


class LookFailedError(SandboxError):
    """A look into the sandbox was not possible, for example because its image has no ``find``."""


@dataclass(slots=True, kw_only=True)
class Observation:
    """One run, filled in as it goes on."""

    kind: str
    tier: str = ""
    end_reason: str = ""
    exit_code: int | None = None
    message: str = ""
    commit: str = ""
    """Of the sources, for git."""
    working_dir: str = ""
    """As the command sees it."""
    job_root: str = ""
    variables: tuple[str, ...] = ()
    """Names only."""
    of_sandbox: frozenset[str] = frozenset()
    """Names of those that the sandbox or its image brings along."""
    sources: dict[str, str] = field(default_factory=dict)
    """What was at ``code_dir`` before the command: a digest and a mode, by path."""
    changes: dict[str, str] | None = None
    """What the command has changed below ``code_dir``: what is there afterwards, by path; None if nobody could look."""
    outputs: dict[str, str] | None = None
    """Digest and mode of each output, by name; None if the job names none."""
    log_sha256: str = ""
    unseen: list[str] = field(default_factory=list)
    """What could not be looked at, and why."""


class Watch:
    """Fills in an observation; see ``agent_runner.watcher``."""

    def __init__(self, seen: Observation, code_dir: str) -> None:
        self._seen = seen
        self._code_dir = code_dir
        self._env: Mapping[str, str] = {}
        self._folder = ""

    async def before(self, sandbox: Sandbox, env: Mapping[str, str], cwd: str) -> None:
        """Look at variables, working directory and sources."""
        seen = self._seen
        seen.tier, seen.job_root = sandbox.info.tier.label, sandbox.job_root
        seen.of_sandbox = frozenset(sandbox.base_env)
        self._env, self._folder = env, sandbox.inside(self._code_dir)
        try:
            # Nothing stands between: a shell would add variables of its own.
            entries = (await self._look(sandbox, ("env", "-0"), cwd)).split(b"\0")
            names = {each.partition(b"=")[0].decode("utf-8", "replace") for each in entries}
            seen.variables = tuple(sorted(names - {""}))
            place = await self._look(sandbox, ("pwd", "-P"), cwd)
            seen.working_dir = place.decode("utf-8", "replace").removesuffix("\n")
            seen.sources = await self._tree(sandbox)
        except SandboxError as error:  # one that matters meets the command, too
            seen.unseen.append(str(error))

    async def after(self, sandbox: Sandbox) -> None:
        """Look at what is there now."""
        if self._seen.unseen:
            return
        try:
            now = await self._tree(sandbox)
        except SandboxError as error:
            self._seen.unseen.append(str(error))
            return
        paths = {*now, *self._seen.sources}
        self._seen.changes = {
            path: now.get(path, MISSING)
            for path in sorted(paths)
            if now.get(path) != self._seen.sources.get(path)
        }

    async def _tree(self, sandbox: Sandbox) -> dict[str, str]:
        argv = ("/bin/sh", "-c", TREE, "sh", self._folder)
        return tree_of((await self._look(sandbox, argv, "/")).decode("utf-8", "surrogateescape"))

    async def _look(self, sandbox: Sandbox, argv: tuple[str, ...], cwd: str) -> bytes:
        command = await sandbox.exec(
            ExecRequest(argv=argv, env=self._env, cwd=cwd, timeout_s=LOOK_S)
        )
        said = bytearray()
        async for piece in command.stream():
            if len(said) <= MAX_LOOK_BYTES:
                said += piece
        result = await command.wait()
        if result.exit_code != 0 or len(said) > MAX_LOOK_BYTES:
            raise LookFailedError(
                f"cannot look into the {self._seen.kind} sandbox: `{argv[0]}` ended with {result.exit_code}"
            )
        return bytes(said)


def tree_of(text: str) -> dict[str, str]:
    """Return what ``TREE`` has printed, by path: a digest and a mode, a link's target, or a folder."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "F":
            # A name with a line break or a backslash is written with a backslash before the digest.
            digest, _, path = rest.removeprefix("\\").partition("  ")
            found[path] = digest[:_DIGEST_CHARS]
        elif kind == "X":
            found[rest] = f"{found.get(rest, '')} executable"
        elif kind == "L":
            path, _, target = rest.partition(" -> ")
            found[path] = f"-> {target}"
        elif kind == "D":
            found[rest] = "folder"
    return {path.removeprefix("./"): what for path, what in found.items() if path != "."}
