"""What all sandboxes have in common that ask for the same: agreed on once, and refused to who asks for what this host cannot hold."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from sandbox.base import Capabilities, Network, SandboxInfo, SandboxRequest, Tier
from sandbox.bounds.control_groups import ControlGroups
from sandbox.bounds.guard import bounds_of
from sandbox.errors import SandboxUnavailableError
from sandbox.filesystem.bubblewrap import BUBBLEWRAP_PROCESSES
from sandbox.filesystem.required import check_nested, check_required
from sandbox.filesystem.terms import Terms
from sandbox.filesystem.tiers import TierBackend

KIND = "filesystem"
_MOST_KEPT = 16


class Agreement(NamedTuple):
    """What one sandbox is to be."""

    info: SandboxInfo
    terms: Terms


def agree(
    backend: TierBackend, groups: ControlGroups, request: SandboxRequest, *, changes_user: bool
) -> Agreement:
    """Return what a sandbox of a tier would be.

    Args:
        backend: The tier.
        groups: The control groups of the provider.
        request: What is asked for.
        changes_user: Whether the commands of each sandbox have a user of their own.

    Raises:
        SandboxUnavailableError: It would not hold what is required.
    """
    mounted = backend.tier is Tier.BWRAP
    bounds = bounds_of(
        limits=request.limits,
        groups=groups,
        extra_pids=BUBBLEWRAP_PROCESSES if mounted else 0,
        own_dev=mounted,
        counts_alone=mounted or changes_user,
    )
    info = SandboxInfo(
        kind=KIND,
        tier=backend.tier,
        walls_not_held=backend.walls_not_held(request.network),
        limits=bounds.kept,
    )
    check_required(request.require, info)
    link = backend.link if request.network is Network.ON else None
    terms = Terms(network=request.network, hosts=request.hosts, link=link, bounds=bounds)
    return Agreement(info, terms)


class Agreements:
    """Those of one provider, from when its tier is known."""

    def __init__(
        self,
        backend: TierBackend,
        capabilities: Capabilities,
        groups: ControlGroups,
        *,
        allow_plain: bool,
        changes_user: bool,
    ) -> None:
        """Remember what they depend on; see ``agree``.

        Args:
            backend: The tier.
            capabilities: What it can do.
            groups: The control groups of the provider.
            allow_plain: The operator's consent to no walls.
            changes_user: Whether the commands of each sandbox have a user of their own.
        """
        self._backend = backend
        self._capabilities = capabilities
        self._groups = groups
        self._allow_plain = allow_plain
        self._changes_user = changes_user
        self._kept: dict[Hashable, Agreement] = {}
        """Of what was asked for without bounds: who keeps those may change."""

    def of(self, request: SandboxRequest) -> Agreement:
        """Return what a sandbox will be. Called once per sandbox.

        Raises:
            SandboxUnavailableError: This host cannot make it.
        """
        asked = (
            request.min_tier,
            request.network,
            request.hosts,
            request.limits,
            request.require,
            request.nested,
        )
        found = self._kept.get(asked)
        if found is None:
            found = self._agreed(request)
            if not found.terms.bounds.kept:
                self._kept[asked] = found
                if len(self._kept) > _MOST_KEPT:
                    del self._kept[next(iter(self._kept))]
        return found

    def _agreed(self, request: SandboxRequest) -> Agreement:
        check_nested(request.nested)
        self._check_tier(request.min_tier)
        self._check_network(request.network)
        return agree(self._backend, self._groups, request, changes_user=self._changes_user)

    def _check_tier(self, wanted: Tier) -> None:
        reached, reason = self._capabilities.tier, self._capabilities.reason
        if reached is Tier.PLAIN and not (self._allow_plain or wanted is Tier.PLAIN):
            raise SandboxUnavailableError(
                f"only the plain tier works here, which needs --allow-unsandboxed: {reason}"
            )
        # The operator's consent covers jobs that ask for nothing special, never one that names a stronger tier.
        waived = self._allow_plain and wanted is Tier.LANDLOCK
        if reached < wanted and not waived:
            raise SandboxUnavailableError(
                f"the job needs the tier {wanted.label}; this host reaches {reached.label}: {reason}"
            )

    def _check_network(self, network: Network) -> None:
        reached, reason = self._capabilities.tier, self._capabilities.reason
        if network is Network.OFF and not self._backend.can_switch_network_off():
            raise SandboxUnavailableError(
                f"the tier {reached.label} cannot switch the network off here"
            )
        if network is Network.HOSTS and not self._backend.can_filter_hosts():
            raise SandboxUnavailableError(
                "a list of hosts needs the tier bwrap with network namespaces; this host reaches"
                f" {reached.label}: {reason or 'without them'}"
            )
