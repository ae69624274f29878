"""Warm slots: sandboxes of the bubblewrap tier that are built before somebody asks, each used once.

A slot is a lane with its folders and a parked bubblewrap around them. It is parked for what most sandboxes ask for: no bounds,
no gate, the network of the last two that were like that. All others are made as ever, and so is one whose checkouts need
mounts of their own. Slots are filled up when nobody has asked for a while: beside jobs that wait for processors nothing
is gained by building ahead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandbox.base import Network, SandboxRequest
from sandbox.bounds.control_groups import ControlGroups
from sandbox.bounds.guard import bounds_of
from sandbox.env import OWNER_MARKER, SANDBOX_MARKER
from sandbox.errors import SandboxError
from sandbox.filesystem.lanes import Lane, Lanes
from sandbox.filesystem.parked import Parked
from sandbox.filesystem.removal_queue import discard_workspace
from sandbox.filesystem.terms import Terms
from sandbox.filesystem.tiers import BubblewrapTier, TierBackend
from sandbox.filesystem.workspace import Workspace, spare_name
from sandbox.limits import Limits

REST_S = 0.01
"""How long nobody must have made or removed a sandbox before slots are built."""
START_S = 0.2
"""The same at the start of a runner, which has more to do then."""
_RETRIES_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""How long after each failure in a row nothing is built."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class WarmSlot:
    """One sandbox that waits for its job."""

    lane: Lane
    workspace: Workspace
    network: Network
    parked: Parked
    watch: asyncio.Task[None]
    """Ends when it dies while it waits."""

    def assign(self, name: str, limits: Limits) -> Workspace:
        """Make it the sandbox of a name, and return its folders. Called once, after ``WarmSlots.take``.

        Raises:
            OSError: A sandbox of this name exists, or the disk is broken; the slot is as it was.
        """
        workspace = self.lane.pool.named(self.workspace, name)
        self.parked.assign(name, limits)
        return workspace


class WarmSlots:
    """The slots of one provider. Used on one event loop only."""

    def __init__(
        self,
        count: int,
        *,
        lanes: Lanes,
        groups: ControlGroups,
        owner_label: str,
        release: Callable[[Lane, bool], None],
    ) -> None:
        """Remember what slots are made of; see ``begin``.

        Args:
            count: How many are to wait.
            lanes: Where the lane of each comes from.
            groups: Of the provider; no slot has one.
            owner_label: Names this agent-runner in their processes.
            release: Takes a lane back, and whether all that ran in it was seen dead.
        """
        self._count = count
        self._lanes = lanes
        self._groups = groups
        self._owner_label = owner_label
        self._release = release
        self._tier: BubblewrapTier | None = None
        self._network: Network | None = None
        """What slots are parked for; None while nobody has asked for what can be parked."""
        self._waiting: list[WarmSlot] = []
        self._building: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rest_until = 0.0
        """Loop time; a timer that rings before it is set anew, once for many calls of ``rest``."""
        self._filling: asyncio.Task[None] | None = None
        self._dropping: set[asyncio.Task[None]] = set()
        self._asked: Network | None = None
        self._failures = 0
        self._not_before = 0.0
        """Loop time."""

    @property
    def pids(self) -> Sequence[int]:
        """Return the processes below which the slots are that wait for a job."""
        return [slot.parked.pid for slot in self._waiting if slot.parked.is_ready()]

    def begin(self, tier: TierBackend) -> None:
        """Build the first ones in a while, if this is a tier that gains by it. Called once the tier is known."""
        if self._count > 0 and isinstance(tier, BubblewrapTier):
            self._tier = tier
            self._network = None if tier.link else Network.ON
            self.rest(START_S)

    def names(self) -> set[str]:
        """Return the folders of the slots, which are no leftovers."""
        return {slot.workspace.name for slot in self._waiting} | self._building

    def take(self, request: SandboxRequest) -> WarmSlot | None:
        """Return the slot for a request, or None if it needs another sandbox or none waits. Called once per sandbox."""
        network = self._parkable(request)
        if network is None:
            return None
        if network is self._asked:  # once is no habit: each change costs as much as all slots
            self._network = network
        self._asked = network
        for slot in self._waiting:
            if slot.network is network and slot.parked.is_ready():
                self._waiting.remove(slot)
                slot.watch.cancel()
                self._failures = 0
                return slot
        return None

    def put_back(self, slot: WarmSlot) -> None:
        """Give back a slot that was taken for nothing; it is as it was."""
        again = self._add(slot.lane, slot.workspace, slot.network, slot.parked)
        if self._tier is None:
            self._drop(again)

    def rest(self, delay_s: float = REST_S) -> None:
        """Fill up after a while, unless this is called again before. Called whenever a sandbox was made or is gone."""
        if self._tier is None:
            return
        loop = asyncio.get_running_loop()
        self._rest_until = max(loop.time() + delay_s, self._not_before)
        if self._timer is not None:
            if self._timer.when() <= self._rest_until:
                return
            self._timer.cancel()
        self._timer = loop.call_at(self._rest_until, self._fill_up)

    async def close(self) -> None:
        """Kill what waits, and give back its folders and lanes. Idempotent."""
        self._tier = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.wait({self._filling})
        for slot in self._waiting[:]:
            self._drop(slot)
        if self._dropping:
            await asyncio.wait(self._dropping)

    def _parkable(self, request: SandboxRequest) -> Network | None:
        """Return what a slot for this request is to begin in; None if none can be parked for it."""
        if self._tier is None:
            return None
        bounded = bool(request.limits.asked())
        served = request.network is Network.HOSTS or (
            request.network is Network.ON and self._tier.link is not None
        )
        return None if bounded or served else request.network

    def _fill_up(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None and self._timer.when() < self._rest_until:
            self._timer = loop.call_at(self._rest_until, self._fill_up)
            return
        self._timer = None
        if self._filling is None or self._filling.done():
            self._filling = asyncio.get_running_loop().create_task(self._fill())

    async def _fill(self) -> None:
        tier, network = self._tier, self._network
        if tier is None or network is None:
            return
        for slot in [slot for slot in self._waiting if slot.network is not network]:
            self._drop(slot)
        try:
            while len(self._waiting) < self._count:
                await self._build(tier, network)
                await asyncio.sleep(0)  # each takes the loop for a millisecond
        except (OSError, SandboxError) as error:
            logger.warning(
                "No sandbox can be built ahead",
                extra={"action": "slot_not_built", "error": str(error)},
            )
            self._try_again()

    async def _build(self, tier: BubblewrapTier, network: Network) -> None:
        lane = self._lanes.take()
        name = spare_name()
        self._building.add(name)
        try:
            workspace = lane.pool.workspace(name)
            bounds = bounds_of(
                limits=Limits(),
                groups=self._groups,
                extra_pids=0,
                own_dev=True,
                counts_alone=True,
            )
            terms = Terms(network=network, hosts=(), bounds=bounds)
            launcher = await tier.launcher(workspace, terms)
            lane.pool.obtain(name, returnable=tier.keeps_folders_private(network))
            try:
                marks = {OWNER_MARKER: self._owner_label, SANDBOX_MARKER: name}
                parked = launcher.park(marks)
            except BaseException:
                lane.pool.forget(workspace)
                discard_workspace(workspace)
                raise
        except BaseException:
            self._lanes.give_back(lane)
            raise
        finally:
            self._building.discard(name)
        self._add(lane, workspace, network, parked)

    def _add(self, lane: Lane, workspace: Workspace, network: Network, parked: Parked) -> WarmSlot:
        watch = asyncio.get_running_loop().create_task(parked.wait_dead())
        slot = WarmSlot(lane, workspace, network, parked, watch)
        watch.add_done_callback(lambda ended: None if ended.cancelled() else self._died(slot))
        self._waiting.append(slot)
        return slot

    def _died(self, slot: WarmSlot) -> None:
        if slot not in self._waiting:
            return
        logger.warning(
            "A sandbox that was built ahead has ended; another one takes its place",
            extra={"action": "slot_died", "sandbox": slot.workspace.name},
        )
        self._drop(slot)
        self._try_again()

    def _try_again(self) -> None:
        delay_s = _RETRIES_S[min(self._failures, len(_RETRIES_S) - 1)]
        self._not_before = asyncio.get_running_loop().time() + delay_s
        self._failures += 1
        self.rest()

    def _drop(self, slot: WarmSlot) -> None:
        """Have a slot go that waits."""
        self._waiting.remove(slot)
        slot.watch.cancel()
        task = asyncio.get_running_loop().create_task(self._discard(slot))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    async def _discard(self, slot: WarmSlot) -> None:
        dead = False
        with contextlib.suppress(SandboxError):
            dead = await slot.parked.discard()
        if not (dead and slot.lane.pool.give_back(slot.workspace)):
            slot.lane.pool.forget(slot.workspace)
            await asyncio.to_thread(discard_workspace, slot.workspace)
        self._release(slot.lane, dead)
