"""P11 and P12: what a job in a container costs, against what the engine itself needs for a container and for an exec."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import ExitStack
from typing import Any

from benchmarks.goals import Goal, Group, Reading, UnavailableError
from sandbox.base import ExecRequest, Network, SandboxRequest
from sandbox.container.engine import Engine
from sandbox.container.failure import Operation
from sandbox.container.provider import ContainerProvider
from tests.contract.container_engine import IMAGE, running_engine, settings_for
from tests.contract.engine_kinds import missing_part

COMMAND = ("true",)
Times = tuple[float, float]


REST_S = 0.02
"""Before each side: for some milliseconds after an answer the engine still does what that asked of it."""


class Containers(Group):
    """An engine of our own. The two sides in turn, so that both meet the same noise; the fastest half of each counts."""

    goals = (
        Goal("P11", "no-op job in a new container vs create + start + wait + remove", 1.15, 1.05),
        Goal(
            "P12", "no-op job in a container that is used again vs exec in a running one", 0.2, 0.05
        ),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start the engine, and one container for the floor of P12."""
        if reason := missing_part():
            raise UnavailableError(f"not available: {reason}")
        root = stack.enter_context(running_engine(below_us=True))
        self._runner = stack.enter_context(asyncio.Runner())
        settings = settings_for(root)
        self._engine = Engine(settings)
        self._provider = ContainerProvider(settings, owner_label="bench")
        self._numbers = itertools.count()
        self._do(self._engine.connect())
        stack.callback(lambda: self._do(self._engine.close()))
        self._do(self._provider.probe())
        stack.callback(lambda: self._do(self._provider.close()))
        self._running = self._do(self._engine.create("floor", _config("sleep", "100000")))
        self._do(self._engine.start(self._running))
        stack.callback(lambda: self._do(self._engine.remove(self._running)))

    def round(self) -> list[Reading]:
        """Both, one after the other."""
        # The exec first: for seconds after it has removed containers the engine is slower.
        again = self._turns(self._raw_exec, self._reusing_job, self.plan.amount(40, 20))
        return [self._turns(self._raw_container, self._job, self.plan.amount(40, 6)), again]

    def _turns(
        self, floor: Callable[[], Awaitable[None]], ours: Callable[[], Awaitable[Times]], count: int
    ) -> Reading:
        async def measure() -> tuple[list[float], list[Times]]:
            floors, times = [], []
            await ours()
            for _ in range(count):
                await asyncio.sleep(REST_S)
                start = time.perf_counter()
                await floor()
                floors.append(time.perf_counter() - start)
                await asyncio.sleep(REST_S)
                times.append(await ours())
            return floors, times

        floors, times = self._do(measure())
        least = _typical_ms(floors)
        ended, gone = (_typical_ms(list(each)) for each in zip(*times, strict=True))
        return Reading(
            ended / least, f"{ended:.1f} of {least:.1f} ms; {gone:.1f} with what follows the result"
        )

    async def _raw_container(self) -> None:
        container = await self._engine.create(f"raw-{next(self._numbers)}", _config(*COMMAND))
        await self._engine.start(container)
        await self._engine.wait(container)
        await self._engine.remove(container)

    async def _raw_exec(self) -> None:
        call = self._engine.call
        path = f"/containers/{self._running}/exec"
        command = {"Cmd": [*COMMAND], "AttachStdout": True}
        made = await call(Operation.START, "POST", path, json=command)
        # Without detaching, the answer ends when the command does.
        await call(Operation.START, "POST", f"/exec/{made.json()['Id']}/start", json={"Tty": True})

    async def _job(self) -> Times:
        return await self._run_job(reuse=False)

    async def _reusing_job(self) -> Times:
        return await self._run_job(reuse=True)

    async def _run_job(self, *, reuse: bool) -> Times:
        """Return the seconds until the result of a job, and until what it left was removed or cleaned."""
        start = time.perf_counter()
        name = f"bench-{next(self._numbers)}"
        sandbox = await self._provider.create(
            SandboxRequest(name=name, network=Network.OFF, reuse=reuse)
        )
        command = await sandbox.exec(ExecRequest(argv=COMMAND, env={}, cwd="/job/src"))
        async for _ in command.stream():
            pass
        result = await command.wait()
        ended = time.perf_counter() - start
        await sandbox.destroy()
        if result.exit_code != 0:
            raise RuntimeError(f"exit {result.exit_code}")
        return ended, time.perf_counter() - start

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)


def _typical_ms(times: list[float]) -> float:
    fastest = sorted(times)[: max(1, len(times) // 2)]
    return statistics.median(fastest) * 1000


def _config(*words: str) -> Mapping[str, Any]:
    host = {"NetworkMode": "none", "LogConfig": {"Type": "none"}}
    return {"Image": IMAGE, "Entrypoint": [], "Cmd": [*words], "HostConfig": host}
