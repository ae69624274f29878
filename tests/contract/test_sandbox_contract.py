"""The sandbox port: how commands run, end and are ended, the same on every backend."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from sandbox import procfs
from sandbox.base import ExecRequest, Network, SandboxRequest, Tier
from sandbox.errors import CommandNotStartedError, SandboxBrokenError, SandboxUnavailableError
from sandbox.filesystem.provider import FilesystemProvider
from sandbox.process_tree import own_helpers
from tests.contract.deviations import BWRAP, CONTAINER, SCRIPTED
from tests.contract.sandbox_backends import (
    ALL_BACKENDS,
    DEADLINE_S,
    FILESYSTEM_BACKENDS,
    PROCESS_BACKENDS,
    WARM,
    any_alive,
    finish,
    open_place,
    read_until,
    until,
    until_waiting,
)
from tests.waiting import wait_until

MIB = 1 << 20


@pytest.fixture(params=(*ALL_BACKENDS, WARM))
async def place(request, reachable_dir):
    """Every backend."""
    async for each in open_place(request, reachable_dir):
        yield each


@pytest.fixture(params=(*FILESYSTEM_BACKENDS, WARM))
async def real(request, reachable_dir):
    """Every backend whose processes and folders are this host's own."""
    async for each in open_place(request, reachable_dir):
        yield each


@pytest.fixture(params=(*PROCESS_BACKENDS, WARM))
async def every(request, reachable_dir):
    """Every backend that runs processes."""
    async for each in open_place(request, reachable_dir):
        yield each


async def test_zero_is_success(place):
    """A command that exits 0 has no signal and no flag."""
    _, result = await place.run("true")
    assert (result.exit_code, result.signal, result.timed_out) == (0, None, False)
    assert result.survivors == ()


@pytest.mark.parametrize("code", [1, 2, 3, 100, 124, 128, 193, 255])
async def test_exit_code_is_passed_on(place, code):
    """Exit codes that mean no signal arrive as they are."""
    _, result = await place.run(f"exit {code}", env={"SCRIPT_EXIT_CODE": str(code)})
    assert (result.exit_code, result.signal) == (code, None)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_death_by_signal(place, number):
    """A death by signal N is 128 + N, and says so."""
    _, result = await place.run(f"kill -{int(number)} $$", env={"SCRIPT_SIGNAL": str(int(number))})
    assert (result.exit_code, result.signal) == (128 + number, number)


async def test_shell_convention_for_signals_is_a_signal(place):
    """Exit code 143 is a death by TERM wherever it comes from."""
    _, result = await place.run("exit 143", env={"SCRIPT_EXIT_CODE": "143"})
    assert (result.exit_code, result.signal) == (143, signal.SIGTERM)


async def test_output_is_streamed(place):
    """What a command prints comes out."""
    output, _ = await place.run("echo hello", env={"SCRIPT_OUTPUT": "hello\n"})
    assert output == b"hello\n"


async def test_timeout_kills(place):
    """The wall-clock bound ends a command and is flagged."""
    env = {"SCRIPT_SLEEP_S": "1000"}
    _, result = await place.run("sleep 1000", env=env, timeout_s=0.2, grace_s=5)
    assert (result.timed_out, result.idle_timed_out, result.signal) == (True, False, 15)


async def test_idle_timeout_kills(place):
    """A command that says nothing for too long is ended and flagged."""
    env = {"SCRIPT_OUTPUT": "x", "SCRIPT_SLEEP_S": "1000"}
    output, result = await place.run("printf x; sleep 1000", env=env, idle_timeout_s=2, grace_s=5)
    assert (output, result.timed_out, result.idle_timed_out) == (b"x", False, True)


async def test_ignored_term_is_followed_by_kill(place):
    """A command that ignores TERM dies of KILL after the grace."""
    env = {"SCRIPT_OUTPUT": "up", "SCRIPT_IGNORE_TERM": "1", "SCRIPT_SLEEP_S": "1000"}
    command = await place.start("trap '' TERM; printf up; sleep 1000", env=env)
    await read_until(command.stream(), b"up")
    start = time.monotonic()
    await command.stop(0.3)
    assert time.monotonic() - start >= 0.3
    assert (await command.wait()).signal == signal.SIGKILL


async def test_term_trap_runs(place):
    """A command with a TERM trap may clean up, and what it prints arrives."""
    env = {
        "SCRIPT_OUTPUT": "up",
        "SCRIPT_SLEEP_S": "1000",
        "SCRIPT_TERM_OUTPUT": "bye",
        "SCRIPT_TERM_EXIT_CODE": "7",
    }
    script = "trap 'sleep 0.2; printf bye; exit 7' TERM; printf up; while :; do sleep 0.02; done"
    command = await place.start(script, env=env)
    stream = command.stream()
    await read_until(stream, b"up")
    await command.stop(20)
    rest = b"".join([piece async for piece in stream])
    assert rest.endswith(b"bye")
    assert (await command.wait()).exit_code == 7


async def test_stop_and_kill_are_idempotent(place):
    """Stop and kill may be called in any order, together, and after the end."""
    command = await place.start("sleep 1000", env={"SCRIPT_SLEEP_S": "1000"})
    async with asyncio.timeout(20):
        await asyncio.gather(command.stop(5), command.kill(), command.kill(), command.stop(1))
        await command.kill()
        await command.stop(1)
    first = await command.wait()
    assert first.exit_code in {137, 143}
    assert await command.wait() == first


async def test_kill_right_after_exec(place):
    """A command that is killed before it got anywhere ends as killed, not as broken."""
    for _ in range(5):
        command = await place.start("sleep 1000", env={"SCRIPT_SLEEP_S": "1000"})
        async with asyncio.timeout(20):
            await command.kill()
            assert (await command.wait()).signal == signal.SIGKILL


HOLD_OUTPUT = (BWRAP, CONTAINER)
"""Something of theirs, which lives as long as the command, has the output open too."""
CLOSES_OUTPUT = pytest.mark.parametrize("closes_output", [False, True])


def sleeper(*, closes_output: bool) -> tuple[str, dict[str, str]]:
    """Return a command that prints one word and sleeps, perhaps without an output."""
    env = {"SCRIPT_OUTPUT": "up", "SCRIPT_SLEEP_S": "1000"}
    if not closes_output:
        return "printf up; exec sleep 1000", env
    script = "printf up; exec >/dev/null 2>&1; exec sleep 1000"
    return script, {**env, "SCRIPT_CLOSE_OUTPUT": "1"}


@CLOSES_OUTPUT
@pytest.mark.parametrize("end", ["stop", "kill", "destroy"])
async def test_a_stopped_command_says_so(place, closes_output, end):
    """What was ended from outside is told from what ended by itself, with or without an output."""
    script, env = sleeper(closes_output=closes_output)
    command = await place.start(script, env=env)
    stream = command.stream()
    await read_until(stream, b"up")
    if closes_output and place.backend not in HOLD_OUTPUT:
        async with asyncio.timeout(DEADLINE_S):
            assert [piece async for piece in stream] == []
    ends = {
        "stop": lambda: command.stop(20),
        "kill": command.kill,
        "destroy": place.sandbox.destroy,
    }
    async with asyncio.timeout(DEADLINE_S):
        await ends[end]()
        result = await command.wait()
    assert result.stopped
    assert result.signal == (signal.SIGTERM if end == "stop" else signal.SIGKILL)
    assert (result.timed_out, result.idle_timed_out) == (False, False)


@CLOSES_OUTPUT
async def test_a_bound_that_was_hit_is_no_stop(place, closes_output):
    """A timeout has its own flag, also when the output has ended long before."""
    script, env = sleeper(closes_output=closes_output)
    command = await place.start(script, env=env, timeout_s=1, grace_s=5)
    output, result = await finish(command)
    assert (output, result.timed_out, result.stopped) == (b"up", True, False)
    await command.stop(5)
    assert await command.wait() == result


async def test_a_command_that_ended_by_itself_was_not_stopped(place):
    """Stopping and killing after the end change nothing about it."""
    command = await place.start("exit 5", env={"SCRIPT_EXIT_CODE": "5"})
    result = await command.wait()
    await command.stop(5)
    await command.kill()
    assert (result.exit_code, result.stopped) == (5, False)
    assert await command.wait() == result


async def test_a_stop_that_comes_too_late_is_no_stop(real):
    """A process that is dead already, which nobody has seen yet, ended by itself."""
    command = await real.start("exit 5")
    # The loop must not run, or it would see the end.
    wait_until(lambda: not any_alive(procfs.own_children() - own_helpers), DEADLINE_S)
    await command.stop(5)
    result = await command.wait()
    assert (result.exit_code, result.stopped) == (5, False)


async def test_a_trapped_stop_is_a_stop(place):
    """A command that makes a success of TERM was stopped nevertheless."""
    env = {"SCRIPT_OUTPUT": "up", "SCRIPT_SLEEP_S": "1000", "SCRIPT_TERM_EXIT_CODE": "0"}
    script = "trap 'exit 0' TERM; printf up; while :; do sleep 0.02; done"
    command = await place.start(script, env=env)
    await read_until(command.stream(), b"up")
    await command.stop(20)
    result = await command.wait()
    assert (result.exit_code, result.signal, result.stopped) == (0, None, True)


async def test_destroy_twice_and_before_exec(place):
    """Destroy may be called before anything ran, and again."""
    other = await place.another()
    await other.destroy()
    await other.destroy()
    with pytest.raises(SandboxBrokenError):
        await place.start("true", sandbox=other)


async def test_destroy_kills_what_runs(place):
    """Destroy ends a running command; whoever waits gets a result."""
    command = await place.start("sleep 1000", env={"SCRIPT_SLEEP_S": "1000"})
    waiting = asyncio.create_task(command.wait())
    async with asyncio.timeout(20):
        await place.sandbox.destroy()
        assert (await waiting).signal == signal.SIGKILL


async def test_commands_run_one_after_another(place):
    """A sandbox takes several commands."""
    for code in (1, 2, 3):
        _, result = await place.run(f"exit {code}", env={"SCRIPT_EXIT_CODE": str(code)})
        assert result.exit_code == code


async def test_same_name_twice_is_refused(place):
    """A name is taken until its sandbox is destroyed."""
    name = place.sandbox.base_env["RUNNER_SANDBOX"]
    with pytest.raises(SandboxBrokenError):
        await place.provider.create(SandboxRequest(name=name, min_tier=Tier.PLAIN))


@pytest.mark.parametrize(
    ("argv", "cwd", "env"),
    [
        ((), "/job/src", {}),
        (("",), "/job/src", {}),
        (("true",), "src", {}),
        (("true",), "/job/src", {"A=B": "x"}),
        (("true",), "/job/src", {"": "x"}),
        (("true",), "/job/src", {"A": "x\0y"}),
        (("true", "\ud800"), "/job/src", {}),
        (("true",), "/job/src", {"A": "\ud800"}),
    ],
)
async def test_impossible_request_is_not_started(place, argv, cwd, env):
    """What no kernel could execute is an error of the command, with a reason."""
    command = await place.sandbox.exec(ExecRequest(argv=argv, env=env, cwd=cwd))
    with pytest.raises(CommandNotStartedError):
        await command.wait()


async def test_missing_binary(every):
    """A program that does not exist is a result, 127, and a line that names it."""
    for name in ("no-such-program", "/no/such/program"):
        output, result = await every.run(name, "x")
        assert (result.exit_code, result.signal) == (127, None)
        assert output == f"runner: cannot execute {name}: No such file or directory\n".encode()


async def test_not_executable(every):
    """A file without the right to execute, and a folder, are a result, 126."""
    await every.run("echo 'echo hi' >script; chmod 644 script")
    for name in ("./script", "/usr"):
        output, result = await every.run(name, "x")
        assert (result.exit_code, result.signal) == (126, None)
        assert output == f"runner: cannot execute {name}: Permission denied\n".encode()


async def test_script_without_interpreter_line_is_run_by_sh(every):
    """An executable text file without #! is run by the shell."""
    await every.run("echo 'echo \"got $1\"; exit 5' >script; chmod 755 script")
    output, result = await every.run("./script", "x y")
    assert (output, result.exit_code) == (b"got x y\n", 5)


async def test_command_may_print_what_a_launcher_would(every):
    """A command that prints lines like our launchers' keeps its output and its exit code."""
    output, result = await every.run("echo 'bwrap: execvp'; echo more; exit 9")
    assert (output, result.exit_code) == (b"bwrap: execvp\nmore\n", 9)


async def test_stdout_and_stderr_are_merged_in_order(every):
    """Both streams are one, in the order of writing."""
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo o$i; echo e$i >&2; done"
    output, _ = await every.run(script)
    assert output == b"".join(b"o%d\ne%d\n" % (i, i) for i in range(1, 10))


async def test_bytes_are_not_touched(every):
    """Invalid UTF-8 and NUL bytes arrive as they were written."""
    output, _ = await every.run(r"printf '\377\376\000\303\050\n\000'")
    assert output == b"\xff\xfe\0\xc3(\n\0"


async def test_stdin_is_empty(every):
    """A command that reads its input finds its end."""
    output, result = await every.run("cat; echo end")
    assert (output, result.exit_code) == (b"end\n", 0)


@pytest.mark.parametrize("mebibytes", [50, 64])
async def test_much_output_is_streamed_in_bounded_pieces(every, mebibytes):
    """Large output, here without a single newline, comes in pieces of at most 256 KiB."""
    command = await every.start(f"head -c {mebibytes * MIB} /dev/zero")
    total = 0
    async with asyncio.timeout(60):
        async for piece in command.stream():
            assert len(piece) <= 256 << 10
            total += len(piece)
    assert total == mebibytes * MIB
    assert (await command.wait()).exit_code == 0


async def test_slow_reader_blocks_the_command(real):
    """Nobody reads: the command is held back after some MiB, loses nothing, and then finishes."""
    mark = real.workspace / "job" / "src" / "count"
    script = (
        "i=0; while [ $i -lt 16 ]; do head -c 1048576 /dev/zero; i=$((i+1)); echo $i >count; done"
    )
    command = await real.start(script, idle_timeout_s=600)
    await until(lambda: mark.exists() and mark.read_text() >= "1\n")
    await until_waiting()
    assert int(mark.read_text()) <= 4
    output, result = await finish(command)
    assert (len(output), result.exit_code) == (16 * MIB, 0)


async def test_back_pressure_is_not_idleness(real):
    """A command that waits for a slow reader is not ended for saying nothing, as a silent one is."""
    command = await real.start("head -c 4194304 /dev/zero", idle_timeout_s=1)
    await until_waiting()
    other = await real.another()
    for _ in range(2):
        _, silent = await real.run("sleep 1000", sandbox=other, idle_timeout_s=0.7, grace_s=0)
        assert silent.idle_timed_out
    output, result = await finish(command)
    assert (len(output), result.idle_timed_out, result.exit_code) == (4 * MIB, False, 0)


async def test_weaker_tier_than_demanded_is_refused(real):
    """A job that demands more than the tier gets an error that says what is there."""
    tier = Tier.parse(real.backend)
    if tier is Tier.BWRAP:
        request = SandboxRequest(name="strong", min_tier=Tier.BWRAP)
        assert (await real.provider.create(request)).info.tier is Tier.BWRAP
        return
    strict = FilesystemProvider(real.root, owner_label="strict", tier=tier)
    with pytest.raises(SandboxUnavailableError, match=tier.label):
        await strict.create(SandboxRequest(name="strong", min_tier=Tier(tier + 1)))
    await strict.close()


async def test_network_off_is_recorded_or_refused(place):
    """A sandbox without a network exists, with what it does not hold, or is refused."""
    try:
        sandbox = await place.another(network=Network.OFF)
    except SandboxUnavailableError:
        assert place.backend == "plain"
        return
    own = place.backend in (SCRIPTED, CONTAINER)
    assert sandbox.info.kind == (place.backend if own else "filesystem")
