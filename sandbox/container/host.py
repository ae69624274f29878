"""What is known of the engine's host once it was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.errors import SandboxUnavailableError
from sandbox.limits import Keeper, KeptLimit, Limit, Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The facts that sandboxes depend on."""

    engine_id: str
    holder_image: str
    """Id of the image from which workspaces are made."""
    memory_bytes: int
    cpus: float
    keepers: Mapping[Limit, Keeper]
    """What keeps a bound; the rest nobody does."""

    @classmethod
    def of(cls, facts: Mapping[str, Any], holder_image: str, *, podman: bool = False) -> Host:
        """Read what the engine says of itself.

        Raises:
            SandboxUnavailableError: It runs no Linux containers.
        """
        if facts.get("OSType", "linux") != "linux":
            raise SandboxUnavailableError("the container engine runs no Linux containers")
        # Podman has no id: it draws one for each answer.
        names = ("DockerRootDir", "ServerVersion") if podman else ("ID",)
        by = Keeper.CGROUP_V2 if str(facts.get("CgroupVersion")) == "2" else Keeper.CGROUP_V1
        has = {
            Limit.MEMORY: facts.get("MemoryLimit"),
            Limit.CPUS: facts.get("CpuCfsQuota"),
            Limit.PIDS: facts.get("PidsLimit"),
        }
        return cls(
            engine_id=" ".join(str(facts.get(name, "")) for name in names),
            holder_image=holder_image,
            memory_bytes=int(facts["MemTotal"]),
            cpus=float(facts["NCPU"]),
            keepers={limit: by for limit, held in has.items() if held},
        )

    def kept(self, limits: Limits) -> tuple[KeptLimit, ...]:
        """Return the bounds that were asked for, and what keeps each."""
        return tuple(
            KeptLimit(limit=limit, value=value, by=self.keepers.get(limit, Keeper.NOBODY))
            for limit, value in limits.asked().items()
        )
