"""The configuration of one agent-runner, and the environment contract by which the daemon hands it over.

The only module of this package besides ``job_spec``, ``outcome`` and ``one_shot`` that the daemon imports. Secrets
and the server's token are not here: they travel over an inherited socket (see ``handover``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from agent_runner.container_policy import ContainerPolicy
from agent_runner.errors import InvalidConfigError
from agent_runner.offering import MAX_SLOTS
from agent_runner.server_link import ServerLink

if TYPE_CHECKING:
    from sandbox.container.registries import Logins
    from sandbox.factory import SandboxConfig

ENV_PREFIX = "RUNNER_AGENT_"
AGENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
TIERS = ("auto", "bwrap", "landlock", "plain")
PULL_POLICIES = ("always", "missing", "never")


class AgentRunnerConfig(NamedTuple):
    """Everything that an agent-runner is told at start. Its fields are given by name."""

    name: str
    """Stays the same over restarts; the server ends the leases of earlier starts of this name."""
    endpoint: str
    """Address of the job server: ``unix:/path`` or ``host:port``."""
    spool_dir: Path
    """Where masked log bytes lie until the server has acknowledged them."""
    workspace_dir: Path
    """Where sandboxes get their folders."""
    owner_label: str
    """Marks processes and folders of this installation, so that a later start finds leftovers."""
    tls_ca: Path | None = None
    """This and the three after it are those of ``ServerLink``."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False
    mode: str = "local"
    """``local`` or ``cloud``: the kind of sandbox, as ``sandbox.factory.kind_of_mode`` has it."""
    slots: int = 2
    warm_slots: int = 0
    """How many sandboxes of the bubblewrap tier wait for their jobs; never more than ``slots``."""
    sandbox_tier: str = "auto"
    """``auto`` takes the strongest tier that works; another word caps it there."""
    allow_unsandboxed: bool = False
    """Lets jobs run in the plain tier where nothing better works."""
    container_engine: str = ""
    """Address of the container engine; empty for Docker's own socket."""
    container_certs: Path | None = None
    """Folder of ``ca.pem``, ``cert.pem`` and ``key.pem`` for an engine behind TLS."""
    container_image: str = ""
    """For jobs that name none."""
    container_pull: str = "missing"
    containers: ContainerPolicy = ContainerPolicy()
    labels: Mapping[str, str] = MappingProxyType({})
    projects: tuple[str, ...] = ()
    """Whose jobs it takes; empty for all that its token is for."""
    max_output_bytes: int = 2 << 30
    """Of the outputs of one attempt."""
    cancel_grace_s: float = 10.0
    """Seconds between TERM and KILL of a cancelled command."""
    drain_timeout_s: float | None = None
    """Seconds that running attempts may go on once told to leave; None leaves that to whoever tells, the daemon."""

    @property
    def server(self) -> ServerLink:
        """Return the way to the job server."""
        return ServerLink(
            address=self.endpoint,
            tls_ca=self.tls_ca,
            tls_certificate=self.tls_certificate,
            tls_key=self.tls_key,
            insecure=self.insecure,
        )

    @property
    def cache_dir(self) -> Path:
        """Return where results are kept that stand for equal jobs; shared like ``source_dir``."""
        return _beside(self.spool_dir, "results")

    @property
    def source_dir(self) -> Path:
        """Return where sources are prepared; agent-runners of one installation and ``run-local`` share it."""
        return _beside(self.spool_dir, "sources")

    def is_local_mode(self) -> bool:
        """Tell whether jobs run behind the walls of this host's kernel, and not in containers. For messages only."""
        return self.mode == "local"

    def _engine_file(self, name: str) -> Path | None:
        return None if self.container_certs is None else self.container_certs / name

    def get_sandbox_config(
        self, logins: Logins | None = None, engine_away: Callable[[str], None] | None = None
    ) -> SandboxConfig:
        """Return which sandboxes the mode stands for, and what they are made with; called once per start.

        Args:
            logins: Tells who we are to registries of images.
            engine_away: Told why the container engine does not answer, if jobs need it that ask for nothing special,
                and with an empty text that it does again.

        Raises:
            SandboxUnavailableError: There is no such mode.
        """
        # Late: the daemon, which only writes this configuration, does without.
        from sandbox.base import Tier  # noqa: PLC0415
        from sandbox.container.settings import (  # noqa: PLC0415
            DEFAULT_ENGINE,
            ContainerSettings,
            Nesting,
            PullPolicy,
        )
        from sandbox.factory import CONTAINER, SandboxConfig, kind_of_mode  # noqa: PLC0415

        policy, kind = self.containers, kind_of_mode(self.mode)
        return SandboxConfig(
            kind=kind,
            root=self.workspace_dir,
            owner_label=self.owner_label,
            tier=None if self.sandbox_tier == "auto" else Tier.parse(self.sandbox_tier),
            allow_plain=self.allow_unsandboxed,
            container=ContainerSettings(
                engine=self.container_engine or DEFAULT_ENGINE,
                ca_file=self._engine_file("ca.pem"),
                cert_file=self._engine_file("cert.pem"),
                key_file=self._engine_file("key.pem"),
                image=self.container_image,
                pull=PullPolicy(self.container_pull),
                logins=logins,
                away=engine_away if kind == CONTAINER else None,
                cache=policy.cache,
                cache_prefix=policy.cache_prefix,
                nested=Nesting(policy.nested),
                allow_privileged=policy.allow_privileged,
                slots=self.slots * policy.agent_runners,
                extra_hosts=policy.extra_hosts,
                rewrite_localhost=policy.rewrite_localhost,
                image_memory=self.spool_dir.parent / "project-images.json",
            ),
            warm_slots=min(self.warm_slots, self.slots),
        )

    def to_env(self) -> dict[str, str]:
        """Return the variables from which ``from_env`` makes an equal value."""
        values = {
            "NAME": self.name,
            "ENDPOINT": self.endpoint,
            "TLS_CA": str(self.tls_ca or ""),
            "TLS_CERTIFICATE": str(self.tls_certificate or ""),
            "TLS_KEY": str(self.tls_key or ""),
            "INSECURE": "true" if self.insecure else "false",
            "SPOOL_DIR": str(self.spool_dir),
            "WORKSPACE_DIR": str(self.workspace_dir),
            "OWNER_LABEL": self.owner_label,
            "MODE": self.mode,
            "SLOTS": str(self.slots),
            "WARM_SLOTS": str(self.warm_slots),
            "SANDBOX_TIER": self.sandbox_tier,
            "ALLOW_UNSANDBOXED": "true" if self.allow_unsandboxed else "false",
            "CONTAINER_ENGINE": self.container_engine,
            "CONTAINER_CERTS": str(self.container_certs or ""),
            "CONTAINER_IMAGE": self.container_image,
            "CONTAINER_PULL": self.container_pull,
            "CONTAINERS": self.containers.to_json(),
            "LABELS": ",".join(f"{key}={value}" for key, value in sorted(self.labels.items())),
            "MAX_OUTPUT_BYTES": str(self.max_output_bytes),
            "PROJECTS": ",".join(self.projects),
            "CANCEL_GRACE_S": repr(self.cancel_grace_s),
            "DRAIN_TIMEOUT_S": "" if self.drain_timeout_s is None else repr(self.drain_timeout_s),
        }
        return {ENV_PREFIX + name: value for name, value in values.items()}

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> AgentRunnerConfig:
        """Read the variables that ``to_env`` writes.

        Raises:
            InvalidConfigError: A variable is missing or malformed; names it and the shape it must have.
        """
        read = _EnvReader(env)
        name = read.text("NAME")
        if not AGENT_NAME.fullmatch(name):
            raise read.error("NAME", "must be 1 to 64 letters, digits, dots, dashes or underscores")
        slots = read.number("SLOTS")
        if not (slots.is_integer() and 1 <= slots <= MAX_SLOTS):
            raise read.error("SLOTS", f"must be a whole number from 1 to {MAX_SLOTS}")
        return cls(
            name=name,
            endpoint=read.text("ENDPOINT"),
            tls_ca=read.path("TLS_CA"),
            tls_certificate=read.path("TLS_CERTIFICATE"),
            tls_key=read.path("TLS_KEY"),
            insecure=read.flag("INSECURE"),
            spool_dir=Path(read.text("SPOOL_DIR")),
            workspace_dir=Path(read.text("WORKSPACE_DIR")),
            owner_label=read.text("OWNER_LABEL"),
            mode=read.text("MODE"),
            slots=int(slots),
            warm_slots=read.count("WARM_SLOTS"),
            sandbox_tier=read.one_of("SANDBOX_TIER", TIERS),
            allow_unsandboxed=read.flag("ALLOW_UNSANDBOXED"),
            container_engine=read.optional("CONTAINER_ENGINE"),
            container_certs=read.path("CONTAINER_CERTS"),
            container_image=read.optional("CONTAINER_IMAGE"),
            container_pull=read.one_of("CONTAINER_PULL", PULL_POLICIES),
            containers=ContainerPolicy.from_json(read.optional("CONTAINERS")),
            labels=read.pairs("LABELS"),
            projects=tuple(filter(None, read.optional("PROJECTS").split(","))),
            max_output_bytes=read.count("MAX_OUTPUT_BYTES"),
            cancel_grace_s=read.number("CANCEL_GRACE_S"),
            drain_timeout_s=(
                read.number("DRAIN_TIMEOUT_S") if read.optional("DRAIN_TIMEOUT_S") else None
            ),
        )


class _EnvReader:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def error(self, name: str, problem: str) -> InvalidConfigError:
        return InvalidConfigError(f"{ENV_PREFIX}{name} {problem}")

    def text(self, name: str) -> str:
        value = self._env.get(ENV_PREFIX + name, "")
        if not value:
            raise self.error(name, "is not set; the daemon sets it")
        return value

    def optional(self, name: str) -> str:
        return self._env.get(ENV_PREFIX + name, "")

    def one_of(self, name: str, known: Collection[str]) -> str:
        value = self.text(name)
        if value not in known:
            raise self.error(name, f"must be one of {', '.join(known)}")
        return value

    def path(self, name: str) -> Path | None:
        text = self.optional(name)
        return Path(text) if text else None

    def number(self, name: str) -> float:
        text = self.text(name)
        try:
            value = float(text)
        except ValueError:
            raise self.error(name, f"must be a number, not {text!r}") from None
        if not 0 <= value < 1e9:  # noqa: PLR2004 - no NaN, no infinity
            raise self.error(name, "must not be negative or endless")
        return value

    def count(self, name: str) -> int:
        text = self.text(name)
        if not text.isdecimal() or len(text) > 18:  # noqa: PLR2004 - 64 bits
            raise self.error(name, f"must be a whole number, not {text!r}")
        return int(text)

    def flag(self, name: str) -> bool:
        text = self.text(name)
        if text not in ("true", "false"):
            raise self.error(name, f"must be true or false, not {text!r}")
        return text == "true"

    def pairs(self, name: str) -> dict[str, str]:
        text = self._env.get(ENV_PREFIX + name, "")
        pairs = {}
        for item in filter(None, text.split(",")):
            key, equals, value = item.partition("=")
            if not equals or not key:
                raise self.error(name, f"must be NAME=VALUE pairs, not {item!r}")
            pairs[key] = value
        return pairs


@lru_cache(maxsize=8)
def _beside(folder: Path, name: str) -> Path:
    """Return the folder of a name beside another one, which is asked for by every attempt."""
    return folder.parent / name
