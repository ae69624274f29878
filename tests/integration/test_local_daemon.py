"""The daemon as a process, with stand-ins for its children: start, stop, status, restart, crashes."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from daemon import VERSION
from daemon.config import environ
from daemon.errors import BusyError, NotRunningError, StartFailedError, StateDirError
from daemon.local.control_client import ControlClient
from daemon.local.lock import take_lock
from daemon.local.log_files import local_logs
from daemon.local.restart import restart_local
from daemon.local.start import StartResult
from daemon.local.status import status_local
from daemon.supervisor import pid_files
from tests.integration.local_daemon import CONFIG, SECRET, Local, alive
from tests.integration.stand_in import digest
from tests.waiting import wait_until


def test_start_reports_in_order_and_stop_leaves_nothing(local):
    """Ready lines in order, then started; after a stop neither processes nor files of the run."""
    result = local.start()
    told = [line.get("process", "started") for line in local.lines]
    assert told == ["daemon", "job-server", "agent-runner", "started"]
    assert result.already is False
    assert set(result.status) == {"mode", "endpoints", "processes", "version"}
    assert result.status["version"] == VERSION
    unix = f"unix:{local.state.server_socket}"
    assert result.status["endpoints"] == {"tcp": "127.0.0.1:7", "unix": unix}
    document = json.loads(local.state.endpoints.read_bytes())
    assert document["control"] == str(local.state.control_socket)
    assert document["endpoints"] == result.status["endpoints"]
    for path in (local.state.control_socket, local.state.token, local.state.pid_file("daemon")):
        assert path.stat().st_mode & 0o777 == 0o600
    pids = local.pids()
    local.stop()
    assert not any(alive(pid) for pid in pids)
    left = {path.name for path in local.state.root.iterdir()}
    assert left == {"lock", "logs", "job-logs", "spool", "token"}
    assert not local.state.runtime.exists()


def test_a_second_start_changes_nothing(local):
    """The token stays too, also over a stop and a start."""
    local.start()
    pids, token = local.pids(), local.state.token.read_bytes()
    assert local.start().already is True
    assert local.pids() == pids
    local.stop()
    local.start()
    assert local.state.token.read_bytes() == token


def test_two_starts_at_once_make_one_daemon(local):
    """The loser waits until the winner is ready and gets its pids."""
    local.server_words = ("slow=0.5", "listen=127.0.0.1:7")
    results: list[StartResult] = []
    threads = [threading.Thread(target=lambda: results.append(local.start())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(result.already for result in results) == [False, True, True]
    assert len({result.status["processes"]["daemon"]["pid"] for result in results}) == 1


def test_a_lock_that_is_not_released_is_busy(local):
    """A previous instance that does not go away is named after the bound."""
    fd = take_lock(local.state)
    try:
        with pytest.raises(BusyError, match=str(local.state.root)):
            local.start(wait_for_lock_s=0.2)
    finally:
        if fd is not None:
            os.close(fd)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("error=port 7 is taken; use --listen",), "job-server: port 7 is taken; use --listen"),
        (("say=no config", "exit=4"), "job-server: it ended at start (exit code 4)"),
    ],
)
def test_a_failed_start_leaves_nothing(local, words, problem):
    """One line with the cause, the tail of the log reported before, no process and no file."""
    local.server_words = words
    with pytest.raises(StartFailedError) as caught:
        local.start()
    assert str(caught.value) == problem
    assert local.lines[-1]["process"] == "job-server"
    assert local.lines[-1]["log_tail"] == ("no config" if "say=no config" in words else "")
    assert not list(local.state.root.glob("*.pid"))
    assert not local.state.endpoints.exists()
    fd = take_lock(local.state)
    assert fd is not None, "the last process has gone"
    os.close(fd)


def test_an_unusable_state_directory_is_one_clear_line(local):
    """A file in the way."""
    local.state.root.write_text("in the way")
    with pytest.raises(StateDirError, match=str(local.state.root)):
        local.start()


def test_the_agent_runner_returns_with_its_secrets_and_without_leftovers(local):
    """kill -9: the orphans of the dead one are killed, although they left its session."""
    pid_file = local.state.root / "grandchild"
    local.agent_words = (f"fork={pid_file}",)
    local.start()
    orphan, old = int(pid_file.read_text()), local.process("agent-runner")["pid"]
    assert alive(orphan)
    os.kill(old, signal.SIGKILL)

    def restarted() -> bool:
        found = local.process("agent-runner")
        return found["state"] == "RUNNING" and found["pid"] != old

    wait_until(restarted, 30)
    wait_until(lambda: not alive(orphan), 30)
    assert local.process("agent-runner")["restarts"] == 1
    assert alive(local.process("job-server")["pid"])
    local.stop()
    assert not alive(int(pid_file.read_text())), "the orphan of the second one, too"


def test_restart_keeps_the_secrets(local):
    """Three new pids, the same secrets, nobody asked; a new configuration."""
    local.start()
    before = local.pids()
    result = restart_local(local.state, {}, {}, local.lines.append)
    assert not set(before) & {entry["pid"] for entry in result.status["processes"].values()}
    assert not any(alive(pid) for pid in before)
    payload = {"token": local.state.token.read_text().strip(), "secrets": {"KEY": SECRET}}
    assert local.agent_digest() == digest(payload)
    restart_local(local.state, {}, {"NEW": "another-secret"}, local.lines.append)
    payload["secrets"]["NEW"] = "another-secret"
    assert local.agent_digest() == digest(payload)


def test_restart_keeps_the_configuration(local):
    """What the start was given stays, restart after restart, unless a restart is given something else."""
    local.start()
    for overrides, slots in (({}, "2"), ({"slots": 7}, "7"), ({"agent_name": "b"}, "7")):
        restart_local(local.state, overrides, {}, local.lines.append)
        assert local.agent_env("RUNNER_AGENT_SLOTS") == slots
    assert local.agent_env("RUNNER_AGENT_NAME") == "b"


def test_a_restart_that_fails_leaves_nothing(local):
    """The successor's failure is the restart's; the lock is free afterwards."""
    flag = local.state.root / "flag"
    local.server_words = (f"fail_if={flag}",)
    local.start()
    flag.touch()
    with pytest.raises(StartFailedError, match="job-server"):
        restart_local(local.state, {}, {}, local.lines.append)
    fd = wait_until(lambda: take_lock(local.state), 30)
    assert fd is not None
    os.close(fd)
    with pytest.raises(NotRunningError):
        status_local(local.state)


def test_a_restart_takes_no_command(local):
    """Another process of this user cannot have its own program started with the secrets."""
    local.start()
    evil = {"children": [{"name": "agent-runner", "argv": ["/bin/false"], "env": {}}]}
    for request in ({"op": "restart", "launch": evil}, {"op": "restart", "config": evil}):
        with ControlClient(local.state) as client:
            (answer,) = client.ask(request)
        assert "malformed" in answer["failed"]
    assert local.process("agent-runner")["restarts"] == 0


def test_children_end_when_the_daemon_is_killed(local):
    """kill -9 of the daemon: the life pipe ends, the lock is free, a stop says that nothing runs."""
    local.start()
    pids = local.pids()
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in pids), 10)
    with pytest.raises(NotRunningError):
        status_local(local.state)
    with pytest.raises(NotRunningError):
        local.stop()
    assert not list(local.state.root.glob("*.pid"))
    assert local.start().already is False


def test_stop_ends_a_daemon_that_hangs(local):
    """A frozen daemon does not answer: its verified processes are signalled, then killed."""
    local.start()
    pids = local.pids()
    os.kill(pids[0], signal.SIGSTOP)
    local.stop(silence_bound_s=0.2, grace_s=0.5)
    assert not any(alive(pid) for pid in pids)
    assert not list(local.state.root.glob("*.pid"))


def test_stale_pid_files_are_removed_without_a_signal(local):
    """A right pid with a wrong nonce is a bystander."""
    bystander = subprocess.Popen(["/bin/sleep", "300"])
    try:
        local.state.prepare()
        for name in ("daemon", "job-server", "agent-runner"):
            identity = pid_files.identify(bystander.pid, "not-in-its-argv")
            assert identity is not None
            pid_files.write(local.state.pid_file(name), identity)
        with pytest.raises(NotRunningError):
            local.stop(now=True)
        assert bystander.poll() is None
        assert not list(local.state.root.glob("*.pid"))
    finally:
        bystander.kill()
        bystander.wait()


def test_signals_drain_then_cancel(local):
    """One SIGTERM to the daemon drains; a second one ends the drain."""
    told = local.state.root / "told"
    local.agent_words = (f"count={told}",)
    local.grace_s = 30  # it leaves by itself, as soon as it gets a processor
    local.start()
    daemon, *children = local.pids()
    os.kill(daemon, signal.SIGTERM)
    wait_until(told.exists, 30)
    os.kill(daemon, signal.SIGTERM)
    wait_until(lambda: not any(alive(pid) for pid in [daemon, *children]), 30)
    assert told.read_text() == "2"


def test_three_signals_end_everything_at_once(local):
    """The third one kills, whatever the children ignore; a hangup is nothing."""
    local.server_words = local.agent_words = ("ignore=",)
    local.start()
    daemon, *children = local.pids()
    os.kill(daemon, signal.SIGHUP)
    assert local.process("daemon")["state"] == "RUNNING"
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(daemon, number)
    wait_until(lambda: not any(alive(pid) for pid in [daemon, *children]), 20)


def test_no_secret_on_disk_or_in_the_process_table(local):
    """Neither a file of the state directory nor argv or environment of any process has it; the log has ***."""
    local.agent_words = ("leak=KEY",)
    local.start()
    wait_until(lambda: "***\n" in list(local_logs(local.state, "agent-runner", 10, False)), 30)
    for path in local.state.root.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    for pid in local.pids():
        for name in ("cmdline", "environ"):
            assert SECRET.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()


def test_the_caller_s_environment_stays_outside(local, monkeypatch):
    """Of a variable that is not on the list nothing reaches the daemon."""
    monkeypatch.setenv("SOME_TOKEN", "token-of-the-caller")
    monkeypatch.setenv("LC_TIME", "C.UTF-8")
    local.start()
    environment = Path(f"/proc/{local.process('daemon')['pid']}/environ").read_bytes()
    assert b"token-of-the-caller" not in environment
    assert b"LC_TIME=C.UTF-8" in environment


def test_an_interrupted_start_leaves_nothing(local):
    """Ctrl-C while a child is not ready yet: the daemon calls the start off and everything goes."""
    script = (
        "import sys, pickle, pathlib\n"
        "from daemon.errors import Interrupted\n"
        "from daemon.local.start import start_local\n"
        "state, config, children = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "try:\n"
        "    start_local(state, config, {}, print, children=lambda *_: children)\n"
        "except Interrupted:\n"
        "    sys.exit(130)\n"
    )
    local.server_words = ("mute=",)
    arguments = local.state.root.parent / "arguments"
    arguments.write_bytes(pickle.dumps((local.state, CONFIG, local.children())))
    with subprocess.Popen(
        [sys.executable, "-P", "-c", script, arguments], stdout=subprocess.DEVNULL
    ) as process:
        server = wait_until(lambda: pid_files.read(local.state.pid_file("job-server")), 20)
        wait_until(lambda: is_starting(local), 20)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert server is not None
    assert not alive(server.pid)
    assert not list(local.state.root.glob("*.pid"))
    fd = take_lock(local.state)
    assert fd is not None
    os.close(fd)


def is_starting(local: Local) -> bool:
    """Tell whether the daemon answers, and waits for the job server; its socket is there before it listens."""
    try:
        return bool(local.process("job-server")["state"] == "STARTING")
    except NotRunningError:
        return False


def test_the_control_socket_wants_the_token(local):
    """The same user is not enough: a job that reaches the socket cannot stop or restart the instance."""
    local.start()
    for token in ("", "wrong"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(local.state.control_socket))
            client.sendall(json.dumps({"op": "stop", "now": True, "token": token}).encode() + b"\n")
            assert b"token" in client.recv(4096)
    assert local.process("daemon")["state"] == "RUNNING"


@pytest.mark.parametrize("request_line", [b"nonsense\n", b"{}\n", b'{"op": "explode"}\n', b"[1]\n"])
def test_nonsense_on_the_control_socket_is_answered(local, request_line):
    """A malformed request gets an error, and the daemon goes on."""
    local.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(local.state.control_socket))
        client.sendall(request_line)
        assert b"error" in client.recv(4096)
    assert local.process("daemon")["state"] == "RUNNING"


def test_foreground_keeps_the_pid_and_tells_the_service_manager(local):
    """READY=1 comes when all is ready; SIGTERM ends it with 0; the environment of the caller is gone."""
    address = str(local.state.root.parent / "notify")
    script = (
        "import sys, pickle, pathlib\n"
        "from daemon.local.start import run_foreground\n"
        "state, config, secrets, children = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "run_foreground(state, config, secrets, children=lambda *_: children)\n"
    )
    arguments = local.state.root.parent / "arguments"
    arguments.write_bytes(pickle.dumps((local.state, CONFIG, {"KEY": SECRET}, local.children())))
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        tempfile.TemporaryFile() as errors,
    ):
        manager.bind(address)
        manager.settimeout(20)
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", script, arguments],
            env={**environ(), "NOTIFY_SOCKET": address, "CALLER": SECRET},
            stderr=errors,
        )
        assert manager.recv(64) == b"READY=1"
        assert local.process("daemon")["pid"] == process.pid
        assert SECRET.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
        restart_local(local.state, {}, {}, local.lines.append)
        assert manager.recv(64) == b"STOPPING=1"
        assert manager.recv(64) == b"READY=1"
        assert local.process("daemon")["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert manager.recv(64) == b"STOPPING=1"
        assert process.wait(20) == 0
        errors.seek(0)
        assert b"The daemon is ready" in errors.read()
