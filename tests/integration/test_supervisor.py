"""The supervisor with real processes: readiness, restarts, FATAL, the stop ladder."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.logs import LogSink
from daemon.supervisor import pid_files
from daemon.supervisor.process import ChildFailedError, ManagedProcess, ProcessSpec
from daemon.supervisor.states import ProcessState
from daemon.supervisor.stop_ladder import Urgency
from daemon.supervisor.supervisor import Supervisor
from sandbox.masking.masker import Masker
from sandbox.procfs import own_children
from tests.integration.stand_in import digest

STAND_IN = str(Path(__file__).with_name("stand_in.py"))
SECRET = "canary-4711-tiger"
PAYLOAD = {"token": "t" * 20, "secrets": {"KEY": SECRET}}
LEAVES_S = 30.0
"""The grace of a child that leaves by itself: as soon as it gets a processor."""


async def until(condition: Callable[[], Any], pause_s: float = 0.01) -> None:
    """Let the loop run until the condition holds; without a pause not one of its turns is missed."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(pause_s)


class Bench:
    """Makes stand-ins and one supervisor of them, and notes what is reported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[dict[str, Any]] = []
        self.masker = Masker()
        self.masker.add("KEY", SECRET)
        self.lock_fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        self.life_in, self.life_out = os.pipe()
        self.supervisor: Supervisor | None = None

    def process(self, name: str, *words: str, payload: Any = None, **spec: Any) -> ManagedProcess:
        log = LogSink(self.folder / "logs" / f"{name}.log", self.masker)
        made = ProcessSpec(
            name=name,
            argv=(sys.executable, "-P", STAND_IN, *words),
            env={"PATH": "/usr/bin:/bin"},
            payload=payload or PAYLOAD,
            pid_file=self.folder / f"{name}.pid",
            **{"grace_s": 0.3, **spec},
        )
        return ManagedProcess(made, log, (self.life_in, self.lock_fd))

    async def run(self, *processes: ManagedProcess, **options: Any) -> Supervisor:
        options = {"cancel_margin_s": 0.2, **options}
        self.supervisor = Supervisor(processes, spared=frozenset(own_children()), **options)
        await self.supervisor.start(self.lines.append)
        return self.supervisor

    def log(self, name: str) -> str:
        return (self.folder / "logs" / f"{name}.log").read_text()


@pytest.fixture
async def bench(tmp_path):
    """A bench whose children are gone at the end."""
    made = Bench(tmp_path)
    yield made
    if made.supervisor is not None:
        made.supervisor.hurry(Urgency.KILL)
        await made.supervisor.stop(0, made.lines.append)
    for fd in (made.lock_fd, made.life_in, made.life_out):
        os.close(fd)


async def test_children_are_reported_in_order_although_the_first_is_slower(bench):
    """Both start at once; the order of the reports is that of the list."""
    server = bench.process("job-server", "slow=0.4", "listen=127.0.0.1:7")
    agent = bench.process("agent-runner")
    await bench.run(server, agent)
    assert [line["process"] for line in bench.lines] == ["job-server", "agent-runner"]
    assert bench.lines[0]["listen"] == "127.0.0.1:7"
    assert bench.lines[0]["pid"] == server.pid
    assert server.state is agent.state is ProcessState.RUNNING


async def test_a_killed_child_comes_back_at_once_with_the_same_secrets(bench):
    """kill -9: another pid, the same payload, one restart, the cause in last_exit."""
    agent = bench.process("agent-runner")
    await bench.run(agent)
    first = agent.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: agent.pid not in (None, first) and agent.state is ProcessState.RUNNING)
    assert agent.ready.result()["digest"] == digest(PAYLOAD)
    described = agent.describe()
    assert (described["restarts"], described["last_exit"]) == (1, "signal 9 (SIGKILL)")
    identity = pid_files.read(agent.spec.pid_file)
    assert identity is not None
    assert identity.pid == agent.pid


async def test_a_second_quick_death_waits(bench):
    """The first restart comes at once, the second one after a delay, in BACKOFF."""
    agent = bench.process("agent-runner")
    await bench.run(agent, first_delay_s=0.2)
    for state in (ProcessState.STARTING, ProcessState.BACKOFF):
        await until(lambda: agent.state is ProcessState.RUNNING)
        os.kill(agent.pid, signal.SIGKILL)
        await until(lambda: agent.state is not ProcessState.RUNNING, 0)
        assert agent.state is state
    await until(lambda: agent.state is ProcessState.RUNNING)
    assert agent.restarts == 2


async def test_five_quick_deaths_are_fatal_and_explained(bench):
    """FATAL has the last exit and the tail of the log, and no other start follows; stop still works."""
    flag = bench.folder / "flag"
    agent = bench.process("agent-runner", f"fail_if={flag}")
    supervisor = await bench.run(agent, first_delay_s=0.01)
    flag.touch()
    os.kill(agent.pid, signal.SIGKILL)
    await until(lambda: agent.state is ProcessState.FATAL)
    described = supervisor.status()["agent-runner"]
    assert described["restarts"] == 4
    assert "exit code 9" in described["reason"]
    assert described["log_tail"] == "the flag is up"
    assert described["pid"] is None
    assert await supervisor.stop(0, bench.lines.append) == []
    assert agent.state is ProcessState.STOPPED


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("error=port 7 is taken",), "job-server: port 7 is taken"),
        (("say=hm", "exit=4"), "job-server: it ended at start (exit code 4)"),
        (("garble", "mute"), "job-server: its ready line is malformed"),
        (("mute",), "job-server: is not ready after 0.5 s"),
    ],
)
async def test_a_child_that_does_not_start_fails_the_start(bench, words, problem):
    """The failure names the process and why, with the log, and nothing of it stays after a stop."""
    server, agent = bench.process("job-server", *words), bench.process("agent-runner")
    with pytest.raises(ChildFailedError) as caught:
        await bench.run(server, agent, ready_deadline_s=0.5 if words == ("mute",) else 20)
    assert str(caught.value) == problem
    assert caught.value.log_tail == ("hm" if "say=hm" in words else "")
    assert await bench.supervisor.stop(0, bench.lines.append) == []
    assert (server.pid, agent.pid) == (None, None)


async def test_the_death_of_a_ready_child_fails_the_start_of_the_others(bench):
    """A server that is ready and dies while the agent-runner still starts is seen at once."""
    server = bench.process("job-server")
    agent = bench.process("agent-runner", "mute")
    start = asyncio.ensure_future(bench.run(server, agent))
    await until(lambda: bench.lines)
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(ChildFailedError, match="job-server: it ended"):
        await start


async def test_a_command_that_is_not_there_is_a_failed_start(bench):
    """A missing interpreter is told like any other failure."""
    process = bench.process("job-server")
    spec = ProcessSpec(
        name="job-server", argv=("/nowhere",), env={}, payload={}, pid_file=process.spec.pid_file
    )
    broken = ManagedProcess(spec, process.log, (bench.life_in, bench.lock_fd))
    with pytest.raises(ChildFailedError, match="cannot be started"):
        await bench.run(broken)


async def test_a_child_that_ignores_term_is_killed(bench):
    """TERM, grace, KILL; nothing survives and the PID file goes."""
    stubborn = bench.process("job-server", "ignore")
    supervisor = await bench.run(stubborn)
    assert await supervisor.stop(0, bench.lines.append) == []
    assert stubborn.last_exit == "signal 9 (SIGKILL)"
    assert not stubborn.spec.pid_file.exists()


async def test_a_draining_child_gets_a_second_term(bench):
    """The first TERM drains for the timeout, the second one cancels; neither is lost in the other."""
    told = bench.folder / "told"
    agent = bench.process("agent-runner", f"count={told}", drains=True, grace_s=LEAVES_S)
    supervisor = await bench.run(agent)
    assert await supervisor.stop(0.3, bench.lines.append) == []
    assert told.read_text() == "2"
    assert agent.last_exit == "exit code 0"


async def test_hurry_ends_a_drain(bench):
    """A second word to stop while a drain of an hour goes on ends it."""
    told = bench.folder / "told"
    agent = bench.process("agent-runner", f"count={told}", drains=True, grace_s=LEAVES_S)
    supervisor = await bench.run(agent)
    stop = asyncio.ensure_future(supervisor.stop(3600, bench.lines.append))
    await until(told.exists)
    supervisor.hurry(Urgency.CANCEL)
    assert await asyncio.wait_for(stop, 30) == []
    assert told.read_text() == "2"


async def test_a_server_that_dies_during_a_drain_comes_back(bench):
    """Whoever still drains needs it to report to; it stops for good when the drain is over."""
    told = bench.folder / "told"
    server = bench.process("job-server")
    agent = bench.process("agent-runner", f"count={told}", drains=True, grace_s=LEAVES_S)
    supervisor = await bench.run(server, agent, first_delay_s=0.05)
    stop = asyncio.ensure_future(supervisor.stop(3600, bench.lines.append))
    await until(told.exists)
    for restarts in (1, 2):
        os.kill(server.pid, signal.SIGKILL)
        await until(lambda: server.restarts == restarts and server.state is ProcessState.RUNNING)  # noqa: B023
    supervisor.hurry(Urgency.CANCEL)
    assert await asyncio.wait_for(stop, 30) == []
    assert (agent.restarts, agent.state) == (0, ProcessState.STOPPED)
    assert (server.restarts, server.state) == (2, ProcessState.STOPPED)


async def test_a_server_that_waits_for_its_next_start_is_stopped_too(bench):
    """The end of the drain calls a restart off that was to come."""
    told = bench.folder / "told"
    server = bench.process("job-server")
    agent = bench.process("agent-runner", f"count={told}", drains=True, grace_s=LEAVES_S)
    supervisor = await bench.run(server, agent, first_delay_s=3600)
    stop = asyncio.ensure_future(supervisor.stop(3600, bench.lines.append))
    await until(told.exists)
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: server.restarts == 1 and server.state is ProcessState.RUNNING)
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: server.state is ProcessState.BACKOFF)
    supervisor.hurry(Urgency.CANCEL)
    assert await asyncio.wait_for(stop, 30) == []
    assert server.state is ProcessState.STOPPED


async def test_nobody_drains_for_a_server_that_is_given_up(bench):
    """What the agent-runner has to report cannot be delivered, so a stop does not wait for it."""
    told, flag = bench.folder / "told", bench.folder / "flag"
    server = bench.process("job-server", f"fail_if={flag}")
    agent = bench.process("agent-runner", f"count={told}", drains=True, grace_s=LEAVES_S)
    supervisor = await bench.run(server, agent, first_delay_s=0.01)
    flag.touch()
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: server.state is ProcessState.FATAL)
    assert await asyncio.wait_for(supervisor.stop(3600, bench.lines.append), 30) == []
    assert told.read_text() == "2"


async def test_a_drain_ends_when_the_server_is_given_up(bench):
    """The same when that happens while the drain goes on."""
    told, flag = bench.folder / "told", bench.folder / "flag"
    server = bench.process("job-server", f"fail_if={flag}")
    agent = bench.process("agent-runner", f"count={told}", drains=True, grace_s=LEAVES_S)
    supervisor = await bench.run(server, agent, first_delay_s=0.01)
    stop = asyncio.ensure_future(supervisor.stop(3600, bench.lines.append))
    await until(told.exists)
    flag.touch()
    os.kill(server.pid, signal.SIGKILL)
    assert await asyncio.wait_for(stop, 30) == []
    assert told.read_text() == "2"


async def test_the_last_started_stops_first(bench):
    """The agent-runner goes before the server that it reports to."""
    supervisor = await bench.run(bench.process("job-server"), bench.process("agent-runner"))
    bench.lines.clear()
    await supervisor.stop(0, bench.lines.append)
    told = [(line["process"], line["state"]) for line in bench.lines]
    assert told == [
        ("agent-runner", "stopping"),
        ("agent-runner", "stopped"),
        ("job-server", "stopping"),
        ("job-server", "stopped"),
    ]


async def test_a_payload_of_a_mebibyte_arrives_whole(bench):
    """A payload larger than any pipe neither blocks the daemon nor the child."""
    payload = {"token": "t", "secrets": {"BIG": "x" * (1 << 20)}}
    agent = bench.process("agent-runner", payload=payload)
    await bench.run(agent)
    assert agent.ready.result()["digest"] == digest(payload)


async def test_a_secret_in_two_writes_is_masked_in_the_log(bench):
    """The log of a child shows neither the secret nor a half of it."""
    agent = bench.process("agent-runner", "say=before", "leak=KEY", "say=after")
    supervisor = await bench.run(agent)
    await supervisor.stop(0, bench.lines.append)
    assert bench.log("agent-runner") == "before\n***\nafter\n"


async def test_no_secret_in_argv_or_environment_of_a_child(bench):
    """What other processes can read of a child holds no secret."""
    agent = bench.process("agent-runner")
    await bench.run(agent)
    for name in ("cmdline", "environ"):
        assert SECRET.encode() not in Path(f"/proc/{agent.pid}/{name}").read_bytes()


async def test_a_stop_without_a_start_is_harmless(bench):
    """Nothing was started, nothing is stopped."""
    supervisor = Supervisor([bench.process("job-server")])
    assert await supervisor.stop(0, bench.lines.append) == []


async def test_a_pid_file_that_cannot_be_written_stops_no_restart(bench):
    """It is logged, and the process runs all the same."""
    agent = bench.process("agent-runner")
    await bench.run(agent)
    agent.spec.pid_file.unlink()
    agent.spec.pid_file.mkdir()
    first = agent.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: agent.pid not in (None, first) and agent.state is ProcessState.RUNNING)
