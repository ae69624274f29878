"""The same product for an ordinary user: root's tests say little about what a developer's account may do."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect
import psutil
import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
NAMES = ("runner-test", "tester")
SETPRIV = "/usr/bin/setpriv"


@dataclass
class Account:
    """An ordinary user with an installation that it can execute."""

    name: str
    uid: int
    runner: Path
    home: Path

    @property
    def prefix(self) -> list[str]:
        """Return the words before a command that is to run as this user."""
        ids = ["--reuid", str(self.uid), "--regid", str(self.uid)]
        return [SETPRIV, *ids, "--clear-groups", "--"]

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "LANG": "C.UTF-8"}

    def run(self, *args: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.prefix, str(self.runner), *args],
            env={**self.env, **env},
            cwd=self.home,
            input=stdin,
            capture_output=True,
            timeout=90,
            check=False,
        )


def find_account() -> tuple[str, int]:
    for name in NAMES:
        try:
            return name, pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    pytest.skip(f"a second user is missing: useradd --create-home {NAMES[0]}")


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    if os.geteuid() != 0:
        pytest.skip("only root can become a second user")
    name, uid = find_account()
    root = Path("/var/tmp") / f"runner-user-{os.getpid()}"
    root.mkdir(mode=0o755)
    try:
        home = root / "home"
        home.mkdir(mode=0o700)
        os.chown(home, uid, uid)
        yield Account(name, uid, _install(root, uid), home)
    finally:
        shutil.rmtree(root)


def _install(root: Path, uid: int) -> Path:
    """Install the product where the user can reach it, under an interpreter that the user can execute."""
    base = Path(sys.executable).resolve()
    # Through a shell: setpriv itself still looks its program up with root's rights.
    usable = [SETPRIV, "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--"]
    usable += ["/bin/sh", "-c", 'exec "$0" -c ""', str(base)]
    if subprocess.run(usable, capture_output=True, check=False).returncode != 0:
        base = Path("/usr/bin/python3")
    subprocess.run([str(base), "-m", "venv", str(root / "venv")], check=True, timeout=60)
    pip = [str(root / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    lock = ROOT / "requirements.lock"
    subprocess.run(
        [*pip, "--constraint", str(lock), str(ROOT)], check=True, timeout=170, capture_output=True
    )
    return root / "venv" / "bin" / "runner"


@pytest.mark.slow
@pytest.mark.alone  # other tests are the same user
@pytest.mark.timeout(300)
def test_a_whole_round_as_an_ordinary_user(account: Account) -> None:
    """Start, a job on the strongest tier, stop; nothing of the user is left."""
    started = account.run("local", "start", "--no-input", "--listen", "127.0.0.1:0")
    assert started.returncode == 0, started.stderr
    assert b"sandbox: bubblewrap" in started.stderr
    try:
        done = account.run(
            "jobs", "submit", "--follow", "--", "sh", "-c", "id -u; ls -a $HOME; exit 4"
        )
        assert done.returncode == 4, done.stderr
        assert done.stdout.splitlines()[0] != b"0"
    finally:
        stopped = account.run("local", "stop")
    assert stopped.returncode == 0, stopped.stderr

    def left() -> list[str]:
        # A zombie is gone; when it is collected is up to whoever is process 1 here.
        return [
            " ".join(process.info["cmdline"] or [])
            for process in psutil.process_iter(["uids", "status", "cmdline"])
            if process.info["uids"] is not None
            and process.info["uids"].real == account.uid
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ]

    wait_until(lambda: not left(), 10, lambda: repr(left()))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("tier", ["bwrap", "landlock"])
def test_walls_hold_for_an_ordinary_user(account: Account, tier: str) -> None:
    """The user's own home, where every other program of the user may write, is out of reach for a job."""
    treasure = account.home / "treasure"
    treasure.write_text("gold")
    os.chown(treasure, account.uid, account.uid)
    job = (
        f'{{"job_command": "cat {treasure}; echo x > {treasure}; echo x > {account.home}/new;'
        ' echo mine > here && cat here"}'
    )
    done = account.run(
        "run-local", "--quiet", "--file", "-", stdin=job.encode(), RUNNER_SANDBOX_TIER=tier
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(b"mine\n")
    assert b"gold" not in done.stdout
    assert treasure.read_text() == "gold"
    assert not (account.home / "new").exists()


@pytest.mark.case("perm-owned-by-other")
def test_the_secret_store(account: Account) -> None:
    """A process that is not dumpable reads what the shell names by descriptor, and refuses what is somebody else's."""
    secret = {"RUNNER_SECRETS_PASSWORD": "correct-horse-4"}
    done = account.run(
        "secrets",
        "init",
        "--kdf-cost",
        "15",
        "--password-file",
        "/dev/stdin",
        stdin=b"correct-horse-4\n",
    )
    assert done.returncode == 0, done.stderr
    done = account.run(
        "secrets", "set", "a", "KEY", "--file", "/dev/stdin", stdin=b"v-1\n", **secret
    )
    assert done.returncode == 0, done.stderr
    folder = account.home / ".config" / "runner" / "secrets"
    for name in ("", ".lock", "secrets.json"):
        assert (folder / name).stat().st_uid == account.uid

    done = subprocess.run(
        [str(account.runner), "secrets", "list-paths"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(account.home), **secret},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2, "root reads it only when that is meant"
    assert f"belongs to user {account.uid}".encode() in done.stderr

    os.chown(folder / "secrets.json", 0, 0)
    done = account.run("secrets", "get", "a", "KEY", stdin=b"", **secret)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"belongs to user 0" in done.stderr
    shutil.rmtree(folder)


@pytest.mark.timeout(300)
def test_memory_is_closed_to_other_processes_of_the_user(account: Account) -> None:
    """Neither environment nor memory of the long-lived processes can be read, and core files are off."""
    started = account.run(
        "local",
        "start",
        "--no-input",
        "--listen",
        "127.0.0.1:0",
        ANTHROPIC_API_KEY="sk-" + "k7" * 9,
    )
    assert started.returncode == 0, started.stderr
    try:
        status = json.loads(account.run("local", "status", "--json").stdout)
        for process in status["processes"].values():
            for name in ("environ", "mem", "maps", "fd/0"):
                reading = [*account.prefix, "head", "-c", "1", f"/proc/{process['pid']}/{name}"]
                done = subprocess.run(reading, capture_output=True, check=False)
                assert b"Permission denied" in done.stderr, (name, done)
            assert _core_limit(process["pid"]) == ["0", "0"]
    finally:
        assert account.run("local", "stop").returncode == 0


@pytest.mark.timeout(300)
def test_the_command_line_tool_is_closed_while_it_asks(account: Account) -> None:
    """It holds what it has found so far."""
    job = account.home / "job.yaml"
    job.write_text("job_command: x\nenv: {A: '${secret:local:B}'}\n")
    for words in (["local", "start", "--secret", "B"], ["run-local", "--file", str(job)]):
        command = [*account.prefix, str(account.runner), *words]
        child: Any = pexpect.spawn(
            command[0], command[1:], env={**account.env, "TERM": "dumb"}, cwd=account.home
        )
        child.expect_exact("): ", timeout=30)
        # What belongs to root in /proc is a process of somebody else that is not dumpable (proc(5)).
        assert os.stat(f"/proc/{child.pid}/environ").st_uid == 0, words
        assert _core_limit(child.pid) == ["0", "0"], words
        child.send("\x03")
        child.expect(pexpect.EOF, timeout=30)
        child.close()
        assert child.exitstatus == 130


def _core_limit(pid: int) -> list[str]:
    limits = Path(f"/proc/{pid}/limits").read_text()
    return next(line for line in limits.splitlines() if line.startswith("Max core")).split()[4:6]
