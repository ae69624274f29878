"""What waits for its orders: a daemon without a document, a job server without its handover."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.errors import StartFailedError
from daemon.local import pending_daemon
from daemon.local.first_spawn import SERVER_ARGV
from daemon.local.pending_daemon import PendingDaemon, spawn_ahead, take_ahead
from daemon.local.restart import restart_local
from daemon.supervisor.spawning import SpawnedChild, spawn
from tests.integration.grpc_server import TOKEN, server_config
from tests.waiting import wait_until

BOUND_S = 20


@pytest.fixture
def server() -> Iterator[tuple[SpawnedChild, list[bytes]]]:
    """A job server that has no handover yet, and what it prints: a line for each import."""
    life_in, life_out = os.pipe()
    env = {"PATH": "/usr/bin:/bin", "PYTHONPROFILEIMPORTTIME": "1"}
    child = spawn(SERVER_ARGV, env, life_in)
    os.set_blocking(child.output_fd, True)
    printed: list[bytes] = []
    reader = threading.Thread(target=_read, args=(child.output_fd, printed))
    reader.start()
    yield child, printed
    child.process.kill()
    child.process.wait()
    reader.join(BOUND_S)
    for fd in (life_in, life_out, child.ready_fd, child.output_fd):
        os.close(fd)


def _read(fd: int, printed: list[bytes]) -> None:
    while data := os.read(fd, 65536):
        printed.append(data)


def test_a_job_server_uses_the_time_until_its_handover(server, tmp_path):
    """It imports what takes long, and its configuration comes with the token."""
    child, printed = server
    wait_until(lambda: b" daemon.server.app\n" in b"".join(printed), BOUND_S)
    config = server_config(tmp_path)
    payload = {"token": TOKEN, "config": config.to_env()}
    lock = os.memfd_create("lock")
    child.hand_over(json.dumps(payload).encode(), lock)
    os.close(lock)
    os.set_blocking(child.ready_fd, True)
    ready: dict[str, Any] = json.loads(os.read(child.ready_fd, 65536))
    assert ready["ready"]["socket"] == str(config.socket)
    folder = f"/proc/{child.pid}/fd"
    assert any("memfd:lock" in _target(f"{folder}/{fd}") for fd in os.listdir(folder))


def _target(link: str) -> str:
    """Return what a descriptor is, of a process that opens and closes others meanwhile."""
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


def test_a_job_server_whose_daemon_goes_ends(server):
    """One line says why, and nothing was opened."""
    child, printed = server
    child.handover.close()
    assert child.process.wait(BOUND_S) == 1
    wait_until(lambda: b"the daemon has gone" in b"".join(printed), BOUND_S)
    assert b"Traceback" not in b"".join(printed)


def test_a_payload_that_is_larger_than_the_socket_arrives(server, tmp_path):
    """The rest is sent when the child has read."""
    child, _ = server
    config = server_config(tmp_path)
    payload = {"token": TOKEN, "config": config.to_env(), "secrets": {"LONG": "x" * (8 << 20)}}
    child.hand_over(json.dumps(payload).encode(), child.ready_fd)
    assert child.handover is not None
    wait_until(child.send, BOUND_S)
    assert child.handover is None
    os.set_blocking(child.ready_fd, True)
    assert b'"ready"' in os.read(child.ready_fd, 65536)


def test_a_job_server_without_the_lock_does_not_start(server):
    """It would serve a state directory that another one may take."""
    child, printed = server
    child.handover.send(json.dumps({"token": TOKEN}).encode())
    child.send()
    assert child.process.wait(BOUND_S) == 1
    wait_until(lambda: b"the lock of the state directory" in b"".join(printed), BOUND_S)


def test_a_lock_that_cannot_be_sent_ends_the_child():
    """Nothing of it stays open, because whoever wanted it gets an error."""
    life_in, life_out = os.pipe()
    child = spawn(SERVER_ARGV, {"PATH": "/usr/bin:/bin"}, life_in, asks=True)
    assert child.questions is not None
    with pytest.raises(OSError, match="Bad file descriptor"):
        child.hand_over(b"{}", 999_999)
    assert child.process.returncode == -signal.SIGKILL
    assert (child.handover, child.questions.fileno()) == (None, -1)
    for fd in (child.ready_fd, child.output_fd):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    os.close(life_in)
    os.close(life_out)


def test_a_daemon_without_a_document_has_nothing_to_do():
    """Started by hand it says who starts it."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "daemon", "--ahead"], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"runner local start" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.fixture
def ahead(monkeypatch) -> PendingDaemon:
    """A daemon that was spawned ahead, as the console script does it."""
    monkeypatch.setattr(pending_daemon, "_ahead", pending_daemon._Ahead())
    spawn_ahead({"PATH": "/usr/bin:/bin"})
    daemon = pending_daemon._ahead.daemon
    assert daemon is not None
    return daemon


def test_a_daemon_with_another_environment_is_not_used(ahead):
    """It has a variable that turned out to be a secret: it is ended before another one is started."""
    assert take_ahead({"PATH": "/bin"}) is None
    assert ahead.process.returncode == 1
    assert take_ahead({"PATH": "/usr/bin:/bin"}) is None


def test_a_daemon_is_taken_once(ahead):
    """Whoever takes it has to end it."""
    taken = take_ahead({"PATH": "/usr/bin:/bin"})
    assert taken == ahead
    assert take_ahead({"PATH": "/usr/bin:/bin"}) is None
    assert ahead.process.poll() is None
    ahead.abandon()
    assert ahead.process.returncode == 1


def test_a_signal_waits_until_a_daemon_can_obey_it(ahead):
    """One that died of it would leave its children to end alone, after the start has said that nothing is left."""
    status = Path(f"/proc/{ahead.process.pid}/status")

    def blocked() -> bool:
        line = next(each for each in status.read_text().splitlines() if each.startswith("SigBlk"))
        return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

    wait_until(blocked, BOUND_S)
    ahead.call_off()
    ahead.abandon()
    assert ahead.process.returncode == 1


def test_a_daemon_that_has_died_is_not_used(ahead):
    """The start is not lost for it."""
    ahead.process.kill()
    ahead.process.wait()
    assert take_ahead({"PATH": "/usr/bin:/bin"}) is None


def test_what_an_interpreter_says_before_there_is_a_log_is_told(local, monkeypatch):
    """A Python that cannot start says why on its standard error, and that is kept in the log."""
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with pytest.raises(StartFailedError):
        local.start()
    assert "encodings" in local.lines[-1]["log_tail"]
    assert "encodings" in local.state.log_file("daemon").read_text()


def test_what_a_successor_says_before_it_has_its_log_is_told(local, monkeypatch, tmp_path):
    """A half-done upgrade: the restart fails, and the log says why."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    local.start()
    shadow = tmp_path / "daemon"
    shadow.mkdir()
    (shadow / "__init__.py").touch()
    (shadow / "__main__.py").write_text("this is = = broken")
    with pytest.raises(StartFailedError):
        restart_local(local.state, {}, {}, local.lines.append)
    log = local.state.log_file("daemon")
    wait_until(lambda: "SyntaxError" in log.read_text(), BOUND_S)
