"""Values of the secret store on their way to an agent-runner: the desk, its reader process and the asking end."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_runner.errors import SecretSourceGoneError
from agent_runner.secret_refs import SecretRef
from agent_runner.secret_source import DaemonSecrets
from daemon.local.secret_desk import SecretDesk
from daemon.secrets.store.names import SecretName
from daemon.secrets.store.secret_store import SecretStore
from daemon.secrets.store.store_folder import StoreFolder
from daemon.secrets.store_reader import LOCKED, NO_STORE, STALE
from daemon.secrets.values import SecretValue
from sandbox import procfs
from tests.waiting import wait_until

PASSWORD = secrets.token_hex(8)
VALUE = "canary-" + secrets.token_hex(12)
REF = SecretRef("npm/tokens", "NPM_TOKEN")
OTHER = SecretRef("a", "B")


class Desk:
    """A desk before a real store, and agent-runners' ends of its channels."""

    def __init__(self, folder: StoreFolder) -> None:
        self.store = SecretStore.create(folder, SecretValue(PASSWORD), cost=14)
        self.path = str(folder.file)
        self.spared: set[int] = set()
        self.hidden: dict[str, str] = {}
        self.desk: SecretDesk = None  # type: ignore[assignment] # until it is opened
        self.spawned = 0
        self.agents: list[DaemonSecrets] = []

    def open(self, *, path: str | None = None, key: str | None = None) -> None:
        found = self.store.key.to_bytes().hex() if key is None else key
        desk = self

        class Spared(set[int]):
            def add(self, pid: int) -> None:
                desk.spawned += 1
                super().add(pid)

        self.spared = Spared()
        store = {"path": self.path if path is None else path, "key": found}
        self.desk = SecretDesk(store, self.spared, self.hide)

    def hide(self, name: str, value: str) -> bool:
        self.hidden[name] = value
        return True

    async def wait_reading(self) -> None:
        """Wait until a reading process lives."""
        async with asyncio.timeout(20):
            while not self.spared:
                await asyncio.sleep(0)

    def agent(self) -> DaemonSecrets:
        if self.desk is None:
            self.open()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.desk.serve(ours)
        self.agents.append(DaemonSecrets({}, theirs.detach()))
        return self.agents[-1]

    def put(self, ref: SecretRef, value: str | bytes) -> None:
        data = value.encode() if isinstance(value, str) else value
        self.store.put({SecretName(*ref): data})


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(StoreFolder(tmp_path / "secrets"))
    yield made
    for agent in made.agents:
        agent.close()
    if made.desk is not None:
        await made.desk.close()
    assert not made.spared


async def test_a_value_of_the_store(desk: Desk) -> None:
    """It comes, it is hidden in our logs before, and what is not there is simply not in the answer."""
    desk.put(REF, VALUE)
    found = await desk.agent().ask([REF, OTHER])
    assert found == ({REF: VALUE}, "")
    assert desk.hidden == {"npm/tokens:NPM_TOKEN": VALUE}


async def test_the_daemon_goes_on_while_a_value_is_hidden(desk: Desk) -> None:
    """All forms of a long value take half a second; nobody gets the value before, and the loop is free."""
    desk.put(REF, VALUE)
    began, may_end = threading.Event(), threading.Event()

    def hide(_name: str, _value: str) -> bool:
        began.set()
        return may_end.wait(20)

    desk.hide = hide  # type: ignore[assignment, method-assign]
    asked = asyncio.create_task(desk.agent().ask([REF]))
    async with asyncio.timeout(20):
        while not began.is_set():
            await asyncio.sleep(0.001)
    assert not asked.done()
    may_end.set()
    assert (await asked).values == {REF: VALUE}


async def test_an_unchanged_store_is_read_once(desk: Desk) -> None:
    """However many ask; and several agent-runners share what was read."""
    desk.put(REF, VALUE)
    first, second = desk.agent(), desk.agent()
    asked = [agent.ask([REF]) for agent in (first, second) for _ in range(20)]
    assert all(found.values == {REF: VALUE} for found in await asyncio.gather(*asked))
    assert desk.spawned == 1


async def test_a_value_that_was_set_a_moment_ago(desk: Desk) -> None:
    """The next question sees it, and a deleted one is gone."""
    agent = desk.agent()
    assert (await agent.ask([REF])).values == {}
    for round_ in range(5):
        desk.put(REF, f"{VALUE}-{round_}")
        assert (await agent.ask([REF])).values == {REF: f"{VALUE}-{round_}"}
    desk.store.delete(SecretName(*REF))
    assert (await agent.ask([REF])).values == {}


async def test_a_changed_password(desk: Desk) -> None:
    """The key opens the store no more, and the answer says what to do."""
    desk.put(REF, VALUE)
    agent = desk.agent()
    assert (await agent.ask([REF])).values
    desk.store.change_password(SecretValue("another-password"), cost=14)
    assert await agent.ask([REF]) == ({}, STALE)
    assert "runner local restart" in STALE


async def test_a_damaged_store(desk: Desk) -> None:
    """It says so, and works again once the file is whole."""
    desk.put(REF, VALUE)
    agent, path = desk.agent(), Path(desk.path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    found = await agent.ask([REF])
    assert found.values == {}
    assert "damaged" in found.why_missing
    path.write_bytes(whole)
    assert (await agent.ask([REF])).values == {REF: VALUE}


async def test_a_store_that_is_gone(desk: Desk) -> None:
    """The message names the file."""
    agent = desk.agent()
    Path(desk.path).unlink()
    found = await agent.ask([REF])
    assert found.values == {}
    assert desk.path in found.why_missing


async def test_a_locked_store_and_none(desk: Desk, tmp_path: Path) -> None:
    """Without a key nothing is read, and the answer says how the runner gets one."""
    desk.open(key="")
    assert await desk.agent().ask([REF]) == ({}, LOCKED)
    await desk.desk.close()
    desk.open(path=str(tmp_path / "nothing"), key="")
    assert await desk.agent().ask([REF]) == ({}, NO_STORE)
    assert await desk.agent().ask([SecretRef("local", "X")]) == ({}, "")
    assert desk.spawned == 0


@pytest.mark.parametrize(
    ("value", "problem"),
    [(b"\xff\xfe\x01", "is no text"), (b"a\0b", "a NUL byte"), (b"x" * 200_000, "is longer")],
    ids=["bytes", "nul", "long"],
)
async def test_a_value_that_no_variable_can_carry(desk: Desk, value: bytes, problem: str) -> None:
    """It is named with the reason, and not handed over."""
    desk.put(REF, value)
    desk.put(OTHER, VALUE)
    found = await desk.agent().ask([REF, OTHER])
    assert found.values == {OTHER: VALUE}
    assert found.why_missing.startswith(f"the value of {REF} ")
    assert problem in found.why_missing


async def test_a_reading_process_that_dies(desk: Desk) -> None:
    """The question is answered without values, and the next one tries again."""
    desk.put(REF, VALUE)
    agent = desk.agent()
    asking = asyncio.create_task(agent.ask([REF]))
    await desk.wait_reading()
    os.kill(next(iter(desk.spared)), signal.SIGKILL)
    found = await asking
    assert found.values == {}
    assert "daemon.log" in found.why_missing
    assert (await agent.ask([REF])).values == {REF: VALUE}


async def test_a_question_that_is_given_up(desk: Desk) -> None:
    """Its answer is not taken for that of the next question."""
    desk.put(REF, VALUE)
    desk.put(OTHER, "other-value")
    agent = desk.agent()
    asking = asyncio.create_task(agent.ask([REF]))
    await desk.wait_reading()
    asking.cancel()
    assert (await agent.ask([OTHER])).values == {OTHER: "other-value"}


async def test_the_very_first_question_is_given_up(desk: Desk) -> None:
    """Before the connection stands: the socket is there for the next one."""
    desk.put(REF, VALUE)
    agent = desk.agent()
    for turns in range(4):
        asking = asyncio.create_task(agent.ask([REF]))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
    assert (await agent.ask([REF])).values == {REF: VALUE}


async def test_a_desk_that_is_closed(desk: Desk) -> None:
    """Who asks is told, and no reading process is left."""
    agent = desk.agent()
    asking = asyncio.create_task(agent.ask([REF]))
    await desk.wait_reading()
    pid = next(iter(desk.spared))
    await desk.desk.close()
    with pytest.raises(SecretSourceGoneError):
        await asking
    wait_until(lambda: procfs.read_stat(pid) is None, 30, "the reading process is gone")


async def test_the_key_is_in_no_process_table(desk: Desk) -> None:
    """Neither the arguments nor the environment of the reading process hold it."""
    agent = desk.agent()
    asking = asyncio.create_task(agent.ask([REF]))
    await desk.wait_reading()
    folder = Path(f"/proc/{next(iter(desk.spared))}")
    seen = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
    await asking
    assert desk.store.key.to_bytes().hex().encode() not in seen
    assert b"store_reading" in seen
