"""What a container will hold of what a job asks for, told before there is one: pure."""

from __future__ import annotations

from dataclasses import replace

from sandbox.base import Network, SandboxInfo, SandboxRequest, Tier, Wall
from sandbox.container import nesting, residents
from sandbox.container.host import Host
from sandbox.container.settings import ContainerSettings, Nesting
from sandbox.errors import SandboxUnavailableError
from sandbox.limits import Keeper

KIND = "container"
HOST_NAME = "host.docker.internal"
"""What commands call the engine's host."""
NOT_HELD = (Wall.PROTECT, Wall.SYSCALLS)
"""A volume is one mount, so a checkout inside it is the job's to change; and the filter of the engine's own leaves more of the
kernel open than ours."""


def promised(request: SandboxRequest, settings: ContainerSettings, host: Host) -> SandboxInfo:
    """Return what a sandbox will be; its image is not known yet. Called once per sandbox, before anything is made.

    Raises:
        SandboxUnavailableError: It cannot be what the job insists on; the text names all of that.
    """
    if request.network is Network.HOSTS:
        raise SandboxUnavailableError("a container cannot keep a list of hosts; use on or off")
    limits = host.kept(request.limits)
    walls = {*NOT_HELD}
    if nesting.check_request(request.nested, settings) is not Nesting.NONE:
        walls |= {*nesting.WALLS_NOT_HELD}
        # What the inner engine runs is in no group of ours.
        limits = tuple(replace(kept, by=Keeper.NOBODY) for kept in limits)
    if is_shared(request):
        walls |= {*residents.WALLS_NOT_HELD}
    missing = [str(kept.limit) for kept in limits if not kept.held]
    missing += [str(wall) for wall in Wall if wall in walls]
    if refused := [name for name in missing if name in request.require]:
        raise SandboxUnavailableError(f"a container here cannot hold: {', '.join(refused)}")
    rewritten = settings.rewrite_localhost and request.network is Network.ON
    return SandboxInfo(
        kind=KIND,
        tier=Tier.CONTAINER,
        walls_not_held=tuple(wall for wall in Wall if wall in walls),
        limits=limits,
        loopback=HOST_NAME if rewritten else "",
    )


def is_shared(request: SandboxRequest) -> bool:
    """Tell whether the container of a job may serve others of its project too."""
    return request.reuse and not request.nested


def extra_hosts(request: SandboxRequest, settings: ContainerSettings) -> list[str]:
    """Return the names that a job finds in its ``/etc/hosts``, as the engine wants them."""
    if request.network is Network.OFF:
        return []
    named = [each.partition("=")[::2] for each in settings.extra_hosts]
    if settings.rewrite_localhost and HOST_NAME not in dict(named):
        named.append((HOST_NAME, "host-gateway"))
    return [f"{name}:{address}" for name, address in named]
