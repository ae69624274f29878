"""One attempt end to end, in the scripted sandbox."""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

from agent_runner.attempt_control import AttemptControl, StopReason
from agent_runner.executor import AttemptRequest, AttemptRun
from agent_runner.job_spec import JobSpec, SourceSpec
from agent_runner.outcome import EndReason, LogSummary, Outcome
from agent_runner.sandbox_spec import SandboxSpec
from agent_runner.secret_refs import SecretRef
from agent_runner.secret_source import GivenSecrets, SecretSource
from sandbox.base import SandboxProvider
from sandbox.factory import open_provider
from sandbox.masking.stream import WITHHELD, MaskingStream

TOKEN = "tok-" + "9" * 16


class Recorder:
    """A LogWriter that keeps what it gets."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.changed = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.data += data
        self.changed.set()

    async def drained(self) -> None:
        pass

    def summary(self) -> LogSummary:
        return LogSummary(length=len(self.data), sha256=hashlib.sha256(self.data).hexdigest())


class Bench:
    """Runs attempts in one scripted provider."""

    def __init__(self, source_dir: Path) -> None:
        self.source_dir = source_dir
        self.provider: SandboxProvider = open_provider(
            "scripted", root=Path("/unused"), owner_label="test"
        )
        self.log = Recorder()
        self.control = AttemptControl()
        self.source: SecretSource | None = None

    async def run(self, secrets: dict[str, str] | None = None, **spec: Any) -> Outcome:
        request = AttemptRequest(
            job_id="j",
            attempt=1,
            spec=JobSpec(argv=("x",), **spec),
            source_dir=self.source_dir,
        )
        values = {SecretRef("local", name): value for name, value in (secrets or {}).items()}
        source = self.source or GivenSecrets(values)
        run = AttemptRun(self.provider, request, source, self.log, self.control)
        try:
            return await asyncio.wait_for(run.run(), 30)
        finally:
            await run.clean_up()
            await run.clean_up()


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("sources"))


async def test_success(bench: Bench) -> None:
    """Output, exit code, sandbox and log digest are in the outcome."""
    outcome = await bench.run(env={"SCRIPT_OUTPUT": "hi\n"})
    assert outcome.succeeded
    assert (outcome.end_reason, outcome.exit_code) == (EndReason.EXITED, 0)
    assert outcome.sandbox.kind == "scripted"
    assert outcome.log == LogSummary(length=3, sha256=hashlib.sha256(b"hi\n").hexdigest())


@pytest.mark.parametrize(
    ("env", "reason", "code"),
    [
        ({"SCRIPT_EXIT_CODE": "3"}, EndReason.EXITED, 3),
        ({"SCRIPT_SIGNAL": "9"}, EndReason.SIGNALED, 137),
        ({"SCRIPT_BROKEN": "no room"}, EndReason.SANDBOX_FAILED, None),
        ({"SCRIPT_START_FAIL": "gone"}, EndReason.SOURCE_FAILED, None),
    ],
)
async def test_failures(
    bench: Bench, env: dict[str, str], reason: EndReason, code: int | None
) -> None:
    """A command that fails and a sandbox that fails are told apart."""
    outcome = await bench.run(env=env)
    assert (outcome.end_reason, outcome.exit_code, outcome.succeeded) == (reason, code, False)


async def test_time_outs(bench: Bench) -> None:
    """Both bounds end the command and say which."""
    outcome = await bench.run(env={"SCRIPT_SLEEP_S": "60"}, timeout_s=0.05)
    assert outcome.end_reason is EndReason.TIMED_OUT
    outcome = await bench.run(env={"SCRIPT_SLEEP_S": "60"}, idle_timeout_s=0.05)
    assert outcome.end_reason is EndReason.IDLE_TIMED_OUT


async def test_secrets_are_resolved_and_masked(bench: Bench) -> None:
    """The command gets the value, the log does not."""
    outcome = await bench.run({"T": TOKEN}, env={"SCRIPT_OUTPUT": "a ${secret:local:T} b"})
    assert outcome.succeeded
    assert bytes(bench.log.data) == b"a *** b"


async def test_missing_secrets_are_all_named(bench: Bench) -> None:
    """Nothing runs, and each missing name is said."""
    outcome = await bench.run(env={"A": "${secret:local:ONE}", "B": "${secret:local:TWO}"})
    assert outcome.end_reason is EndReason.SECRET_MISSING
    assert "ONE" in outcome.message
    assert "TWO" in outcome.message


async def test_a_masker_that_fails_shows_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails closed: a notice instead of the raw bytes."""

    def broken(self: MaskingStream, data: bytes) -> bytes:
        raise ValueError("defect")

    monkeypatch.setattr(MaskingStream, "feed", broken)
    outcome = await bench.run({"T": TOKEN}, env={"SCRIPT_OUTPUT": "${secret:local:T}"})
    assert outcome.exit_code == 0
    assert bytes(bench.log.data) == WITHHELD


async def test_output_is_bounded(bench: Bench) -> None:
    """What is over the bound is dropped and the summary says so."""
    outcome = await bench.run(
        env={"SCRIPT_OUTPUT": "x" * 1000, "SCRIPT_OUTPUT_REPEAT": "10"},
        sandbox=SandboxSpec(output_bytes=1500),
    )
    assert outcome.succeeded
    assert (outcome.log.length, outcome.log.truncated) == (1500, "size_limit")


async def test_a_source_that_is_not_there(bench: Bench, tmp_path: Path) -> None:
    """It fails before anything runs and names the folder."""
    missing = str(tmp_path / "missing")
    outcome = await bench.run(source=SourceSpec(kind="copy", path=missing))
    assert outcome.end_reason is EndReason.SOURCE_FAILED
    assert missing in outcome.message


@pytest.mark.parametrize(
    ("reason", "interrupted"), [(StopReason.CANCEL, False), (StopReason.INTERRUPT, True)]
)
async def test_stopping(bench: Bench, reason: StopReason, interrupted: bool) -> None:
    """A cancel counts, an interrupt does not."""
    running = asyncio.create_task(bench.run(env={"SCRIPT_OUTPUT": "up", "SCRIPT_SLEEP_S": "60"}))
    await asyncio.wait_for(bench.log.changed.wait(), 10)
    bench.control.stop(reason, 5)
    outcome = await running
    assert (outcome.end_reason, outcome.interrupted) == (EndReason.CANCELLED, interrupted)


async def test_an_urgent_stop_overtakes_a_patient_one(bench: Bench) -> None:
    """A deaf command is killed at once when the second request has no grace."""
    script = {"SCRIPT_OUTPUT": "up", "SCRIPT_SLEEP_S": "600", "SCRIPT_IGNORE_TERM": "1"}
    running = asyncio.create_task(bench.run(env=script))
    await asyncio.wait_for(bench.log.changed.wait(), 10)
    bench.control.stop(StopReason.CANCEL, 300)
    await asyncio.sleep(0)
    bench.control.stop(StopReason.INTERRUPT, 0)
    outcome = await running
    assert outcome.end_reason is EndReason.CANCELLED
    assert outcome.interrupted


async def test_a_job_cancelled_before_it_starts(bench: Bench) -> None:
    """Nothing is executed."""
    bench.control.stop(StopReason.CANCEL, 5)
    outcome = await bench.run(env={"SCRIPT_OUTPUT": "never"})
    assert outcome.end_reason is EndReason.CANCELLED
    assert not bench.log.data


async def test_a_message_that_is_no_text_can_be_sent(bench: Bench) -> None:
    """Names from a file system may hold bytes that are no characters."""
    outcome = await bench.run(env={"SCRIPT_BROKEN": "bad name \udcff"})
    assert outcome.message.encode().startswith(b"bad name ")


async def test_a_value_that_no_variable_can_hold(bench: Bench) -> None:
    """It shows only when the reference is filled in, and is an end of the job like any other."""
    outcome = await bench.run({"T": "nul\0byte"}, env={"A": "${secret:local:T}"})
    assert outcome.end_reason is EndReason.SECRET_MISSING
    assert "A" in outcome.message


async def test_a_cancel_reaches_the_preparation(bench: Bench, tmp_path: Path) -> None:
    """A request to stop ends the copy of a source instead of waiting for it."""
    for number in range(2000):
        (tmp_path / str(number)).write_text("x")
    running = asyncio.create_task(bench.run(source=SourceSpec(kind="copy", path=str(tmp_path))))
    await asyncio.sleep(0)
    bench.control.stop(StopReason.CANCEL, 0)
    assert (await running).end_reason is EndReason.CANCELLED


async def test_a_second_request_gives_no_grace_back(bench: Bench) -> None:
    """The earlier deadline counts."""
    bench.control.stop(StopReason.CANCEL, 1)
    bench.control.stop(StopReason.INTERRUPT, 100)
    assert bench.control.grace_s <= 1
    assert bench.control.reason is StopReason.INTERRUPT


async def test_long_values_leave_the_loop_free(bench: Bench) -> None:
    """While the forms of long values are made, the other attempts of the process get on."""
    longest_s, ended = 0.0, asyncio.Event()

    async def look() -> None:
        nonlocal longest_s
        while not ended.is_set():
            before = time.process_time()  # of all threads, and none of other processes
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.process_time() - before)

    looking = asyncio.create_task(look())
    began = time.process_time()
    outcome = await bench.run(env={f"N{n}_KEY": f"'<{n}>\"\n" * 9000 for n in range(4)})
    busy_s = time.process_time() - began
    ended.set()
    await looking

    assert outcome.succeeded
    assert longest_s < busy_s / 4
