"""The Sandbox port: a place to run commands, and the values that cross it.

Flow, per attempt: ``SandboxProvider.create`` → ``Sandbox.upload`` (0..n) → ``Sandbox.exec`` (1..n, one
at a time) → ``Command.stream`` until it ends → ``Command.wait`` → ``Sandbox.download`` (0..n) →
``Sandbox.destroy``. ``Command.stop``, ``Command.kill`` and ``Sandbox.destroy`` may be called at any moment and
repeatedly. Every backend passes ``tests/contract/test_sandbox_contract.py``.
"""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sandbox.env import has_bytes
from sandbox.limits import KeptLimit, Limit, Limits


class Tier(enum.IntEnum):
    """How strong the walls of a sandbox are; a higher value holds more. A job names the weakest one that it accepts."""

    PLAIN = 0
    """A directory and a process group. No walls."""
    LANDLOCK = 1
    """Kernel access rules on the command and all its descendants."""
    BWRAP = 2
    """Bubblewrap: own mount, process, user, IPC and host-name namespaces."""
    CONTAINER = 3
    """A container of an engine, with a root file system of its own. Nobody has to ask for it: MODE does."""

    @property
    def label(self) -> str:
        """Return the word used in job files, records and on the wire."""
        return self.name.lower()

    @classmethod
    def parse(cls, label: str) -> Tier:
        """Return the tier with this label.

        Raises:
            ValueError: No tier has this label.
        """
        for tier in cls:
            if tier.label == label:
                return tier
        raise ValueError(f"{label!r} is not a sandbox tier: use {', '.join(t.label for t in cls)}")


class Network(enum.StrEnum):
    """What a command may reach."""

    ON = "on"
    """Other hosts."""
    OFF = "off"
    """A loopback of its own, or nothing at all."""
    HOSTS = "hosts"
    """The hosts of a list, through a proxy that looks names up itself."""


class Wall(enum.StrEnum):
    """One promise of a sandbox. What a backend cannot hold is recorded with the attempt."""

    FS_WRITE = "fs_write"
    """Writes only below the workspace, the private home and the private /tmp."""
    FS_READ = "fs_read"
    """Home directories, the runner's state and other workspaces cannot be read."""
    PROCESSES = "processes"
    """Other processes of the host can be neither seen nor signalled."""
    PROTECT = "protect"
    """Git's hooks and configuration and those of editors and agents cannot be changed in existing checkouts."""
    SYSCALLS = "syscalls"
    """Parts of the kernel that no build needs are out of reach."""
    METADATA = "metadata"
    """Modes, times and attributes of files outside cannot be changed."""
    TREE_KILL = "tree_kill"
    """No descendant outlives the command, whatever it does."""
    NETWORK = "network"
    """The network is as the job asked for, and the loopback and the abstract sockets of the host are out of reach."""
    JOB_UID = "job_uid"
    """A runner that was started by root runs the command as somebody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a provider can do on this host, found by trying it."""

    kind: str
    tier: Tier
    walls_not_held: tuple[Wall, ...] = ()
    reason: str = ""
    """Why no stronger tier was reached; empty at the strongest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxInfo:
    """What one sandbox really is; recorded with the attempt."""

    kind: str
    tier: Tier
    walls_not_held: tuple[Wall, ...] = ()
    limits: tuple[KeptLimit, ...] = ()
    """The bounds that were asked for, in the order of ``Limit``."""
    image: str = ""
    """What a container runs on, by digest; empty where there are no images."""
    loopback: str = ""
    """What URLs of loopback in the environment are to name instead; empty where they stay as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRequest:
    """What one attempt asks of a provider."""

    name: str
    """Labels the sandbox: ``<job id>-<attempt>``, letters, digits and dashes. Unique among live sandboxes."""
    min_tier: Tier = Tier.LANDLOCK
    """The weakest tier that is acceptable. ``Tier.PLAIN`` is the job's consent to no walls."""
    network: Network = Network.ON
    hosts: tuple[str, ...] = ()
    """What may be reached, for ``Network.HOSTS``; see ``sandbox.network.rules``."""
    limits: Limits = field(default_factory=Limits)
    protect: bool = True
    """Whether git's hooks and configuration and those of editors and agents are read-only in existing checkouts."""
    require: frozenset[str] = frozenset()
    """Names of walls, and of limits that are asked for, without which there must be no sandbox."""
    image: str = ""
    """Of the container; empty for the operator's default. Nothing to the other kinds."""
    kind: str = "auto"
    """Which kind it must be, where a provider makes several; ``auto`` is what the operator decided."""
    project: str = "default"
    """Whose job it is: what jobs of one project share, others do not reach."""
    cache: bool = False
    """Whether the project's cache is to be at ``/cache``, where the sandbox is a container."""
    reuse: bool = False
    """Consent to a container in which jobs of the same project ran before, and will again."""
    nested: str = ""
    """The engine of containers that the job wants inside: ``dind``, ``dood``, or empty for none."""
    tell: Callable[[str], None] | None = field(default=None, compare=False, repr=False)
    """Takes a line for the job's log, about what takes long before the command begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """One command."""

    argv: tuple[str, ...]
    """Looked up on the sandbox's PATH when it holds no slash. Never empty."""
    env: Mapping[str, str]
    """The whole environment of the command: nothing is added but what ``Sandbox.base_env`` already holds."""
    cwd: str
    """Absolute, as the command sees it."""
    timeout_s: float | None = None
    """Wall-clock bound, monotonic; then TERM, ``grace_s``, KILL."""
    idle_timeout_s: float | None = None
    """Bound on the time without any output."""
    grace_s: float = 10.0
    """Seconds between TERM and KILL, for a bound that was hit."""
    stdin: int | None = None
    """A pipe that the command reads, or a terminal that it reads and writes; None: there is nothing to read. Open until
    ``exec`` has returned. Of the filesystem sandbox alone, for ``runner sandbox shell``."""

    def check(self) -> None:
        """Refuse what no backend can start. Called first in ``exec``.

        Raises:
            ValueError: There is no program, a relative working directory, a NUL byte, or text that has no bytes.
        """
        if not self.argv or not self.argv[0]:
            raise ValueError("a command needs at least a program")
        texts = "".join((*self.argv, self.cwd))
        if "\0" in texts:
            raise ValueError("an argument or the working directory holds a NUL byte")
        if not has_bytes(texts):
            raise ValueError("an argument or the working directory holds half of a character")
        if not self.cwd.startswith("/"):
            raise ValueError(f"the working directory {self.cwd!r} is not absolute")
        if self.stdin is not None and not _is_line(self.stdin):
            raise ValueError("only a pipe or a terminal is handed through the walls")


def _is_line(fd: int) -> bool:
    """Tell whether nothing can be reached by a descriptor but its other end: by that of a folder all of a host can."""
    return fd > 2 and (os.isatty(fd) or stat.S_ISFIFO(os.fstat(fd).st_mode))  # noqa: PLR2004 - beside the usual three


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """How a command ended. A command that fails is a result, never an exception.

    At most one of ``timed_out``, ``idle_timed_out`` and ``stopped`` is set: what came first.
    """

    exit_code: int
    """As a shell sees it: 128 + N after a death by signal N; 127 not found, 126 not executable."""
    signal: int | None = None
    """Set for exit codes 129 to 192 as well: not every backend can tell the two apart."""
    timed_out: bool = False
    idle_timed_out: bool = False
    stopped: bool = False
    """TERM or KILL of ``stop``, ``kill`` or ``destroy`` was sent while the main process still ran.

    False for a command that ended by itself, whatever was called afterwards; the exit code alone
    does not tell, because a command may trap TERM. The end of the output says nothing about it:
    a command may close its output and go on.
    """
    exceeded: Limit | None = None
    """The bound for which processes of the tree were killed, by the kernel or by us; the disk or the memory."""
    planted: tuple[str, ...] = ()
    """What is new in checkouts that were there before and would be run by git, an editor or an agent; below the job root."""
    survivors: tuple[str, ...] = ()
    """``pid command`` of each process that was still there after KILL; empty in a healthy world."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveProcess:
    """One process of a command, as the host sees it at one moment."""

    pid: int
    parent_pid: int
    command: str
    """The command line, unmasked: whoever passes it on masks it first."""
    state: str
    """One letter of proc_pid_stat(5), such as ``R`` or ``S``."""
    cpu_s: float
    """User and system time that it has used."""
    start_s: float
    """When it was started, in seconds since the Unix epoch."""


class Command(Protocol):
    """One command that was started."""

    def stream(self) -> AsyncIterator[bytes]:
        """Yield the merged stdout and stderr in order, in pieces of at most 256 KiB, until it ends.

        Called once per command. Reading slowly stops the command by back-pressure: at most about
        1 MiB is held. Ends at the latest 0.1 s after the main process, even if a leftover holds the pipe;
        may end long before it, when the command closes its output.
        """
        ...

    async def wait(self) -> ExecResult:
        """Wait until the command and its whole tree are gone. Safe to call repeatedly and concurrently.

        Raises:
            CommandNotStartedError: The request is impossible: no program, an environment that no kernel
                carries, or a working directory that cannot be used. A program that does not exist or
                is not executable is a result, 127 or 126, with one line of output that names it.
            SandboxBrokenError: The sandbox itself failed; the attempt may be retried.
        """
        ...

    async def stop(self, grace_s: float) -> None:
        """Send TERM to the whole tree, wait up to ``grace_s``, then kill. Idempotent."""
        ...

    async def kill(self) -> None:
        """Kill the whole tree; when it returns no descendant is left. Idempotent."""
        ...

    async def processes(self) -> list[LiveProcess]:
        """Return what runs at this moment, the oldest first and at most 500; empty before and after.

        Called when a person asks, at any moment and concurrently. Walls may hide what others can see.
        """
        ...


class Sandbox(Protocol):
    """A place to run commands, made by a provider for one attempt."""

    @property
    def info(self) -> SandboxInfo:
        """Tell what the sandbox really is."""
        ...

    @property
    def job_root(self) -> str:
        """Return the absolute path of the workspace as commands see it; ``/job`` where it can be mounted."""
        ...

    @property
    def base_env(self) -> Mapping[str, str]:
        """Return PATH, HOME, TMPDIR, LANG, USER and the like, as they must be inside."""
        ...

    def inside(self, path: str) -> str:
        """Map an absolute path of the job file (``/job/…``) to the one that commands see."""
        ...

    async def upload(
        self, source: Path, target: str, left_out: frozenset[str] = frozenset()
    ) -> None:
        """Copy a host folder (its content) to ``target``, a path relative to the job root.

        ``left_out`` names files and folders, relative to the source, that are not copied.

        Regular files, folders and links are copied as they are; links are never followed. Called by
        source preparation, before ``exec``. When it returns or raises nothing is copied any more; a
        cancellation or ``destroy`` ends it soon, with a part of the source in place.

        Raises:
            SandboxBrokenError: The sandbox was destroyed.
            TransferRefusedError: The source holds a device, socket or FIFO, or cannot be read.
        """
        ...

    async def download(self, path: str, limit_bytes: int) -> bytes:
        """Read a regular file below the job root without following any link. Called after ``exec``.

        Raises:
            FileNotFoundError: There is no such file.
            TransferRefusedError: The path leaves the job root, crosses a link, or is no regular file within the limit.
        """
        ...

    async def exec(self, request: ExecRequest) -> Command:
        """Start one command. Called again only after the one before has ended.

        Raises:
            SandboxBrokenError: The sandbox cannot run commands at all.
        """
        ...

    async def destroy(self) -> None:
        """Kill what runs, then remove the workspace. Idempotent; safe after any failure.

        Raises:
            SandboxBrokenError: The workspace, which it names, cannot be removed. Everything is dead
                nevertheless; the sandbox stays with its provider, whose ``close`` tries again.
        """
        ...


class SandboxProvider(Protocol):
    """Makes sandboxes of one kind, or of several. One per process; used concurrently."""

    kind: str
    """What a request for ``auto`` gets: ``filesystem``, ``container`` or ``scripted``."""

    async def probe(self) -> Capabilities:
        """Find out what works here by trying it. Called at start; the answer is kept."""
        ...

    async def create(self, request: SandboxRequest) -> Sandbox:
        """Make an empty sandbox: folders ``src`` and ``ci`` exist below its job root.

        Raises:
            SandboxUnavailableError: This host cannot reach ``request.min_tier``, or hold what ``request.require`` names,
                or plain was not allowed.
            SandboxBrokenError: It could have, and failed.
        """
        ...

    async def reap(self) -> list[str]:
        """Remove what an earlier process of the same owner left: processes and workspaces; return their names.

        Called once, before the first ``create``. A workspace that cannot be removed is logged and left.
        """
        ...

    async def close(self) -> None:
        """Destroy every sandbox that is left. Idempotent; what cannot be removed is logged and left."""
        ...
