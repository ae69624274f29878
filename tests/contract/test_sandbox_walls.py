"""The walls of the sandboxes that run processes: what a command cannot reach, see or keep."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from sandbox.base import Network, SandboxRequest, Tier
from sandbox.errors import CommandNotStartedError
from sandbox.limits import GIB, MIB, Limits
from tests.contract.deviations import BWRAP, PLAIN
from tests.contract.sandbox_backends import FILESYSTEM_BACKENDS, PROCESS_BACKENDS, WARM, open_place
from tests.ports import quiet_port

CANARY = "canary-5e1f"


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


@pytest.fixture
def host_home(real, tmp_path_factory):
    """A folder of the host that the job's user owns, so that only a wall keeps it out."""
    path = Path("/var/tmp") / f"runner-host-{os.getpid()}"
    path.mkdir(mode=0o700)
    (path / "secret").write_text(CANARY)
    for each in (path, path / "secret"):
        os.chown(each, real.job_uid, -1)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def listener():
    """A TCP server on the host's loopback that greets."""

    async def greet(_reader, writer):
        writer.write(CANARY.encode())
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def test_environment_is_exactly_what_is_promised(every, monkeypatch):
    """Base variables plus the requested ones, and nothing of ours."""
    monkeypatch.setenv("RUNNER_CANARY", CANARY)
    output, _ = await every.run("/usr/bin/env", "-0", env={"JOB_VALUE": "a\nb=c", "LANG": "C"})
    seen = dict(entry.split("=", 1) for entry in output.decode().split("\0")[:-1])
    seen.pop("PWD", None)  # bubblewrap sets it to the working directory
    assert seen == {**every.sandbox.base_env, "JOB_VALUE": "a\nb=c", "LANG": "C"}


async def test_markers_cannot_be_overridden(every):
    """A job cannot pass for another sandbox."""
    output, _ = await every.run("echo $RUNNER_SANDBOX", env={"RUNNER_SANDBOX": "other"})
    assert output.decode().strip() == every.sandbox.base_env["RUNNER_SANDBOX"]


async def test_environment_of_the_launcher_is_not_readable(every, monkeypatch):
    """No process that a command can look into holds our environment."""
    monkeypatch.setenv("RUNNER_CANARY", CANARY)
    # The environment of this process at its start cannot be changed, so a child stands in for it.
    with subprocess.Popen(["/usr/bin/sleep", "1000"]) as peer:
        output, _ = await every.run("cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'")
        peer.kill()
    # The plain tier has no wall between processes of one user; as root it still has another user.
    assert CANARY.encode() not in output or (every.backend == PLAIN and os.geteuid() != 0)


async def test_no_descriptor_is_inherited(every):
    """A command has 0, 1 and 2, even if ours are inheritable."""
    fd = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        output, _ = await every.run("ls /proc/self/fd")
    finally:
        os.close(fd)
    assert output.split() == [b"0", b"1", b"2", b"3"]  # 3 is the folder that ls reads


async def test_command_leads_its_own_session(every):
    """A command has no terminal and cannot signal our group."""
    output, _ = await every.run("cat /proc/self/stat | cut -d' ' -f6; echo x >/dev/tty")
    assert output.split()[0] != str(os.getsid(0)).encode()
    assert b"/dev/tty" in output


async def test_privileges_cannot_be_gained(every):
    """no_new_privs is set, no capability is left."""
    output, _ = await every.run("grep -E '^(NoNewPrivs|CapEff|CapPrm)' /proc/self/status")
    assert output.split() == [b"CapPrm:", b"0" * 16, b"CapEff:", b"0" * 16, b"NoNewPrivs:", b"1"]


async def test_root_runs_nothing_as_root(real):
    """What a command writes belongs to the job's user."""
    await real.run("touch made")
    assert (real.workspace / "job" / "src" / "made").stat().st_uid == real.job_uid != 0


async def test_job_environment_is_not_seen_by_privileged_programs(every):
    """A library that the job asks to preload is loaded as the job's user, or not at all."""
    output, _ = await every.run("id -u", env={"LD_PRELOAD": "/job/src/evil.so"})
    assert output.split()[-1] != b"0"


async def test_job_paths_are_the_documented_ones(every):
    """The workspace is /job, the home /home/job, and both exist."""
    output, _ = await every.run("pwd; cd; pwd; ls /job", cwd="/job/src")
    assert output == b"/job/src\n/home/job\nci\nsrc\n"
    assert every.sandbox.job_root == "/job"


async def test_own_folders_are_writable(real):
    """The source, the home and the temporary folder can be written, and are below the workspace."""
    script = (
        'for d in . "$HOME" "$TMPDIR" "$RUNNER_JOB_ROOT/src"; do echo x >"$d/f" || exit 1; done'
    )
    output, result = await real.run(script)
    assert (output, result.exit_code) == (b"", 0)
    for folder in ("job/src", "home", "tmp"):
        assert (real.workspace / folder / "f").read_text() == "x\n"


async def test_job_root_itself_is_writable(every):
    """A command may make folders beside src."""
    _, result = await every.run('mkdir "$RUNNER_JOB_ROOT/out"')
    assert result.exit_code == 0


async def test_cwd_is_honoured(every):
    """A command starts where it was asked to."""
    await every.run("mkdir -p 'a b/c'")
    output, _ = await every.run("pwd", cwd="/job/src/a b/c")
    assert output.decode().strip() == every.sandbox.inside("/job/src/a b/c")


async def test_cwd_that_does_not_exist_is_an_error_of_the_command(every):
    """A missing working directory, or a file, is not started, with a reason."""
    await every.run("touch file")
    for cwd in ("/job/src/nowhere", "/job/src/file"):
        command = await every.start("true", cwd=cwd)
        with pytest.raises(CommandNotStartedError, match="working directory"):
            await command.wait()


@pytest.mark.parametrize("folder", ["/usr", "/etc", "/usr/bin", "/bin", "/proc/sys/kernel", "/"])
async def test_system_cannot_be_written(every, folder):
    """Nothing can be made in a folder of the system."""
    name = f"{folder}/runner-{CANARY}"
    _, result = await every.run(f"echo x >{name}")
    assert result.exit_code != 0
    assert not Path(name).exists()


async def test_owned_host_folder_cannot_be_written(real, host_home):
    """A folder of the host that the job's user owns is out of reach."""
    script = f"echo x >{host_home}/new; echo y >{host_home}/secret; rm -rf {host_home}"
    await real.run(f"{script}; ln -s {host_home} d; echo x >d/new2")
    assert [path.name for path in host_home.iterdir()] == ["secret"]
    assert (host_home / "secret").read_text() == CANARY


async def test_owned_host_file_cannot_be_read(real, host_home):
    """A file of the host that the job's user owns cannot be read, by no path."""
    secret = host_home / "secret"
    output, _ = await real.run(
        f"cat {secret}; cat /proc/1/root{secret}; cat /proc/self/cwd/../../../../../..{secret};"
        f" ln -s {secret} l; cat l; ln {secret} h; cat h"
    )
    assert CANARY.encode() not in output


async def test_shadow_cannot_be_read(every):
    """Password hashes are out of reach."""
    _, result = await every.run("cat /etc/shadow")
    assert result.exit_code != 0


async def test_other_workspace_cannot_be_read(real):
    """Sandboxes do not see each other's files, nor that they exist."""
    other = await real.another()
    folder = real.root / other.base_env["RUNNER_SANDBOX"]
    _, result = await real.run(f"echo {CANARY} >f; chmod 644 f", sandbox=other)
    assert result.exit_code == 0
    output, _ = await real.run(f"cat {folder}/job/src/f; ls {real.root}")
    assert CANARY.encode() not in output
    assert folder.name.encode() not in output.replace(os.fsencode(folder), b"")


async def test_host_tmp_is_not_shared(every):
    """/tmp is private, or closed."""
    mark = Path("/tmp") / f"runner-host-{os.getpid()}"
    mark.write_text(CANARY)
    mark.chmod(0o666)
    try:
        output, _ = await every.run(f"cat {mark}; echo x >{mark}; echo x >{mark}.new")
        assert CANARY.encode() not in output
        assert mark.read_text() == CANARY
        assert not Path(f"{mark}.new").exists()
    finally:
        mark.unlink()
        Path(f"{mark}.new").unlink(missing_ok=True)


async def test_shared_memory_is_private_and_usable(every):
    """POSIX shared memory works and is not the host's."""
    name = f"/dev/shm/runner-{CANARY}"
    _, result = await every.run(f"echo x >{name} && rm {name} && touch {name}")
    made = Path(name).exists()
    Path(name).unlink(missing_ok=True)
    assert (result.exit_code, made) == (0, False)


async def test_ci_that_comes_between_two_commands_is_read_only(real, tmp_path):
    """What the first command could write, the second one cannot."""
    write = 'echo x >"$RUNNER_JOB_ROOT/ci/new"'
    (tmp_path / "check").touch()
    await real.run("true")
    await real.sandbox.upload(tmp_path, "ci")
    _, result = await real.run(write)
    assert result.exit_code != 0
    assert os.listdir(real.workspace / "job" / "ci") == ["check"]


async def test_ci_is_read_only(real, tmp_path):
    """The trusted folder can be executed and read, not changed, replaced or made writable."""
    (tmp_path / "check").write_text("echo checked\n")
    (tmp_path / "check").chmod(0o755)
    await real.sandbox.upload(tmp_path, "ci")
    script = (
        'cd "$RUNNER_JOB_ROOT"; ci/check; echo x >ci/new; echo x >ci/check; chmod u+w ci;'
        " echo x >ci/new; rm -rf ci; mv ci ci2; mkdir ci; echo x >ci/new; rm ci/check"
    )
    output, _ = await real.run(script)
    assert output.startswith(b"checked\n")
    ci = real.workspace / "job" / "ci"
    assert [path.name for path in ci.iterdir()] == ["check"]
    assert (ci / "check").read_text() == "echo checked\n"


async def test_what_is_left_for_the_runner_can_be_written_beside_trusted_files(real, tmp_path):
    """Where the job root itself could not be written without opening the trusted folder, these files are there."""
    (tmp_path / "check").write_text("x")
    await real.sandbox.upload(tmp_path, "ci")
    await real.run('echo left >"$RUNNER_JOB_ROOT/triggers.json"')

    assert await real.sandbox.download("triggers.json", 100) == b"left\n"


async def test_host_processes_are_invisible(every):
    """A command sees no process but its own tree."""
    output, _ = await every.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert b"pytest" not in output


async def test_host_processes_cannot_be_signalled(real):
    """A process of the same user outside is safe from the command."""
    if real.backend != BWRAP and os.geteuid() == 0:
        peer = subprocess.Popen(
            ["/usr/bin/setpriv", f"--reuid={real.job_uid}", "--clear-groups", "sleep", "1000"]
        )
    else:
        peer = subprocess.Popen(["/usr/bin/sleep", "1000"])
    try:
        while "sleep" not in Path(f"/proc/{peer.pid}/comm").read_text():
            await asyncio.sleep(0.01)
        # The answer of kill, not the death: that may come a moment later, and a wall that fails would pass.
        _, result = await real.run(f"kill -0 {peer.pid}")
        assert result.exit_code != 0
        assert peer.poll() is None
    finally:
        peer.kill()
        peer.wait()


async def test_network_on_reaches_loopback(real, listener):
    """With the network on a command can connect."""
    output, _ = await real.run("bash", "-c", f"cat </dev/tcp/127.0.0.1/{listener}")
    assert output == CANARY.encode()


async def test_network_off_blocks_loopback(real, listener):
    """With the network off not even a server on the host's loopback can be reached."""
    sandbox = await real.another(network=Network.OFF)
    argv = ("bash", "-c", f"cat </dev/tcp/127.0.0.1/{listener}")
    output, result = await real.run(*argv, sandbox=sandbox)
    assert CANARY.encode() not in output
    assert result.exit_code != 0


async def test_network_off_blocks_listening(real):
    """With the network off nothing of the host can connect to what a command listens on."""
    sandbox = await real.another(network=Network.OFF)
    port = quiet_port()
    script = (
        f"import socket,time; s=socket.socket(); s.bind(('127.0.0.1',{port})); s.listen();"
        " print('up', flush=True); time.sleep(1000)"
    )
    command = await real.start("/usr/bin/python3", "-c", script, sandbox=sandbox)
    async for _ in command.stream():
        break
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0
    await command.kill()


async def test_core_files_are_off(every):
    """A crash leaves no core file, whatever our own limit is."""
    output, _ = await every.run("ulimit -c; ulimit -n")
    assert output.split() == [b"0", b"4096"]


async def test_memory_bound(real):
    """A process that takes more than its bound fails; the sandbox does not."""
    request = SandboxRequest(
        name="bounded", min_tier=Tier.PLAIN, limits=Limits(memory_bytes=256 * MIB)
    )
    sandbox = await real.provider.create(request)
    script = "x = bytearray(%d); print('got it')"
    for size, fits in ((64 * MIB, True), (1 * GIB, False)):
        argv = ("/usr/bin/python3", "-I", "-S", "-c", script % size)
        output, result = await real.run(*argv, sandbox=sandbox)
        assert (result.exit_code == 0, b"got it" in output) == (fits, fits)


async def test_process_bound(every):
    """A fork bomb is held, and what it held is free again after the kill."""
    request = SandboxRequest(name="few", min_tier=Tier.PLAIN, limits=Limits(pids=20))
    sandbox = await every.provider.create(request)
    script = "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done; echo all"
    output, _ = await every.run(script, sandbox=sandbox, timeout_s=20, grace_s=0)
    assert b"all" not in output
    output, result = await every.run("echo again", sandbox=sandbox)
    assert (output, result.exit_code) == (b"again\n", 0)


async def test_file_bound(every):
    """A file that grows past its bound ends the writer."""
    request = SandboxRequest(name="small", min_tier=Tier.PLAIN, limits=Limits(file_bytes=MIB))
    sandbox = await every.provider.create(request)
    _, result = await every.run("exec head -c 2097152 /dev/zero >f", sandbox=sandbox)
    assert result.exit_code != 0


async def test_missing_program_with_limits(every):
    """A program that does not exist is 127 with limits in front as well."""
    request = SandboxRequest(name="bounded", min_tier=Tier.PLAIN, limits=Limits(memory_bytes=GIB))
    sandbox = await every.provider.create(request)
    output, result = await every.run("no-such-program", "x", sandbox=sandbox)
    line = b"runner: cannot execute no-such-program: No such file or directory\n"
    assert (output, result.exit_code) == (line, 127)


async def test_walls_are_reported(real):
    """The recorded level is what was reached."""
    capabilities = await real.provider.probe()
    assert real.sandbox.info.tier.label == real.backend == capabilities.tier.label
    assert (real.backend == BWRAP) == (capabilities.walls_not_held == ())
