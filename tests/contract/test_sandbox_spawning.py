"""The moment in which a command begins: it must find nothing of the agent-runner's that it could reach."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from sandbox.filesystem.landlock import kernel_abi, scoped
from tests.contract.deviations import BWRAP, LANDLOCK, PLAIN
from tests.contract.sandbox_backends import (
    FILESYSTEM_BACKENDS,
    PROCESS_BACKENDS,
    WARM,
    Place,
    open_place,
)

TRIES = 60
KILL_EVERY_THREAD = """
for round in 1 2 3; do
    for task in /proc/$PPID/task/*; do kill -9 ${task##*/} 2>/dev/null; done
done
echo tried
"""
LIMIT_EVERY_THREAD = """
for task in /proc/$PPID/task/*; do
    prlimit --pid ${task##*/} --nofile=3:3 2>/dev/null && echo limited
done
echo tried
"""
STATUS = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' /proc/self/status"


@pytest.fixture(params=FILESYSTEM_BACKENDS)
async def real(request, reachable_dir):
    """Every backend that runs processes."""
    async for each in open_place(request, reachable_dir):
        yield each


@pytest.fixture(params=(*PROCESS_BACKENDS, WARM))
async def every(request, reachable_dir):
    """Every backend that runs processes, and sandboxes that were built ahead."""
    async for each in open_place(request, reachable_dir):
        yield each


def attack(backend, root, script) -> subprocess.CompletedProcess[bytes]:
    """Let a process run this script in many sandboxes; return how the process ended."""
    argv = [sys.executable, "-m", "tests.contract.hostile_commands", backend, str(root)]
    return subprocess.run(
        [*argv, str(TRIES), script], check=False, capture_output=True, timeout=120
    )


def can_be_signalled(backend) -> bool:
    """Tell whether this tier does not keep commands of one user from signalling, which it records."""
    return os.geteuid() != 0 and (
        backend == PLAIN or (backend == LANDLOCK and not scoped(kernel_abi()))
    )


@pytest.mark.parametrize("backend", FILESYSTEM_BACKENDS)
def test_a_command_cannot_kill_who_spawns_it(backend, reachable_dir):
    """Not even in its first moment: no thread of ours ever has its user or its Landlock domain."""
    if can_be_signalled(backend):
        pytest.skip("this tier says that processes of the user can be signalled")
    done = attack(backend, reachable_dir, KILL_EVERY_THREAD)
    assert (done.returncode, done.stdout) == (0, b"tried\n"), done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="without root all processes are of one user")
@pytest.mark.parametrize("backend", [LANDLOCK, PLAIN])
def test_a_command_cannot_limit_who_spawns_it(backend, reachable_dir):
    """Resource limits belong to all threads of a process, so one thread of the job's user would be enough."""
    done = attack(backend, reachable_dir, LIMIT_EVERY_THREAD)
    assert (done.returncode, done.stdout) == (0, b"tried\n"), done.stderr


async def test_every_command_gives_up_the_same(real: Place):
    """The second command of a sandbox has no more rights than the first, and none of root's."""
    first, _ = await real.run(STATUS)
    again, _ = await real.run(STATUS)
    assert again == first
    fields = dict(line.split(":", 1) for line in first.decode().splitlines())
    assert fields["NoNewPrivs"].split() == ["1"]
    sets = ["CapPrm", "CapEff", "CapAmb", "CapInh"]
    if os.geteuid() == 0:
        sets.append("CapBnd")
        users = set(fields["Uid"].split() + fields["Gid"].split())
        assert users == ({"1000"} if real.backend == BWRAP else {str(real.job_uid)})
        assert fields["Groups"].split() in ([], ["65534"])
    assert {int(fields[name], 16) for name in sets} == {0}


async def test_a_script_without_a_first_line_is_run_by_the_shell(real: Place):
    """As every shell does it, with or without a folder in its name."""
    script = "printf 'echo ran $1\\n' >tool; chmod 755 tool"
    await real.run(script)
    output, result = await real.run("./tool", "this")
    assert (output, result.exit_code) == (b"ran this\n", 0)


async def test_a_program_is_looked_up_as_a_shell_does(real: Place):
    """The first one that can be executed; what cannot be is told only if nothing can."""
    await real.run("mkdir a b; echo 'echo a' >a/tool; echo 'echo b' >b/tool; chmod 755 b/tool")
    source = real.sandbox.inside("/job/src")
    env = {"PATH": f"{source}/none:{source}/a:{source}/b:/usr/bin"}
    output, _ = await real.run("tool", "", env=env)
    assert output == b"b\n"
    output, result = await real.run("tool", "", env={"PATH": f"{source}/a:{source}/none"})
    assert (output, result.exit_code) == (b"runner: cannot execute tool: Permission denied\n", 126)


async def test_more_words_than_a_kernel_takes_are_a_result(real: Place):
    """The command's fault, not the sandbox's."""
    output, result = await real.run("/bin/true", "x" * (3 << 20))
    assert result.exit_code == 126
    assert output == b"runner: cannot execute /bin/true: Argument list too long\n"


async def test_a_working_directory_that_may_not_be_entered(real: Place):
    """Told apart from a sandbox that broke, and from a program that is missing."""
    await real.run("mkdir closed; chmod 0 closed")
    command = await real.start("true", cwd="/job/src/closed")
    with pytest.raises(Exception, match="working directory cannot be used"):
        await command.wait()


async def test_signals_that_the_caller_ignores_are_not_ignored(every):
    """Who starts the runner with nohup or in the background of a script ignores SIGHUP or SIGINT; its jobs do not."""
    ignored = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    try:
        output, _ = await every.run("exec grep SigIgn /proc/self/status")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    found = int(output.split()[1], 16)
    assert {number for number in signal.valid_signals() if found >> (number - 1) & 1} == set()


async def test_umask_is_not_that_of_the_caller(every):
    """What a file of the job may be does not depend on the shell that started the runner."""
    before = os.umask(0o077)
    try:
        output, _ = await every.run("umask")
    finally:
        os.umask(before)
    assert output == b"0022\n"
