"""Values of the secret store in jobs: through the daemon and by ``run-local``, and where each secret comes from."""

from __future__ import annotations

import os
import secrets
import signal
from pathlib import Path

import pytest

from tests.e2e.instance import PROCESSES, Instance
from tests.e2e.terminal import Terminal
from tests.waiting import wait_until

PASSWORD = "pw-" + secrets.token_hex(8)
VALUE = "canary-" + secrets.token_hex(12)
ECHO = "job_command: 'echo \"got=$X length=${#X}\"'\nenv: {X: '${secret:npm/tokens:TOKEN}'}\n"
LACKING = "Y: '${secret:a:B}${secret:c/d:E}', Z: '${secret:local:LACKING}'"
SHOWN = f"got=*** length={len(VALUE)}\n".encode()


@pytest.fixture
def stored(instance: Instance) -> Instance:
    """An installation with a store and its password in the environment of every command."""
    instance.extra_env["RUNNER_SECRETS_PASSWORD"] = PASSWORD
    instance.ok("secrets", "init")
    put(instance, "npm/tokens", "TOKEN", VALUE)
    return instance


def put(instance: Instance, path: str, key: str, value: str) -> None:
    instance.ok("secrets", "set", path, key, "--stdin", stdin=value.encode())


def echo(instance: Instance, text: str = ECHO) -> bytes:
    """Run a job that prints a secret's length; return its log."""
    done = instance.run("jobs", "submit", "--follow", "--file", instance.job_file(text))
    assert done.returncode == 0, done.stderr.decode() + instance.tails()
    return done.stdout


def refused(instance: Instance, text: str = ECHO) -> str:
    """Run a job whose secret is missing; return why."""
    done = instance.run("jobs", "submit", "--wait", "--file", instance.job_file(text))
    assert done.returncode == 8, done.stderr.decode() + instance.tails()
    return done.stdout.decode()


def lock(instance: Instance) -> None:
    del instance.extra_env["RUNNER_SECRETS_PASSWORD"]


def test_a_job_gets_a_value_of_the_store(stored: Instance) -> None:
    """The password is needed by the start only; the value is in no file, no process table, no log."""
    stored.start()
    lock(stored)
    assert echo(stored) == SHOWN
    assert stored.files_with(VALUE.encode()) == []
    assert stored.files_with(PASSWORD.encode()) == []
    for process in PROCESSES:
        seen = Path(f"/proc/{stored.pid(process)}/cmdline").read_bytes()
        if os.geteuid() == 0:
            seen += Path(f"/proc/{stored.pid(process)}/environ").read_bytes()
        assert VALUE.encode() not in seen
        assert PASSWORD.encode() not in seen
        assert b"RUNNER_SECRETS_PASSWORD" not in seen


def test_a_job_sees_neither_password_nor_the_daemon_s_environment(stored: Instance) -> None:
    """The variable is in no job's environment, and that of its parent cannot be read or lacks it."""
    stored.start()
    job = stored.submit("env; cat /proc/$PPID/environ || echo unreadable")
    assert stored.wait(job)["state"] == "SUCCEEDED"
    assert b"RUNNER_SECRETS_PASSWORD" not in stored.log(job)


def test_a_value_that_was_set_after_the_start(stored: Instance) -> None:
    """The next job sees it, and without a restart."""
    stored.start()
    assert echo(stored) == SHOWN
    put(stored, "npm/tokens", "TOKEN", VALUE + "-longer")
    lock(stored)
    assert echo(stored) == f"got=*** length={len(VALUE) + 7}\n".encode()


def test_several_agent_runners_and_one_that_died(stored: Instance) -> None:
    """Each can ask, and so can the one that takes the place of a dead one."""
    stored.start("--agent-runners", "2", "--slots", "1")
    lock(stored)
    text = ECHO.replace("echo", "sleep 1; echo")
    path = stored.job_file(text)
    jobs = [stored.ok("jobs", "submit", "--file", path).strip() for _ in range(2)]
    agents = {stored.wait(job)["id"] and stored.log(job) for job in jobs}
    assert agents == {SHOWN}
    old = stored.pid("agent-runner")
    os.kill(old, signal.SIGKILL)
    wait_until(
        lambda: stored.status()["processes"]["agent-runner"]["pid"] not in (None, old),
        20,
        "it is back",
    )
    jobs = [stored.ok("jobs", "submit", "--file", path).strip() for _ in range(2)]
    assert {stored.wait(job)["id"] and stored.log(job) for job in jobs} == {SHOWN}


def test_all_missing_references_are_named(stored: Instance) -> None:
    """At once, with what is there left out."""
    stored.start()
    text = ECHO.replace("{X:", f"{{{LACKING}, X:")
    message = refused(stored, text)
    assert "${secret:a:B}, ${secret:c/d:E}" in message
    assert "${secret:local:LACKING}" in message
    assert "npm/tokens" not in message


def test_a_changed_password(stored: Instance) -> None:
    """The message names the cure, and the cure works."""
    stored.start()
    assert echo(stored) == SHOWN
    stored.extra_env["RUNNER_SECRETS_PASSWORD"] = PASSWORD
    file = stored.root / "new"
    file.write_text(PASSWORD + "-new\n")
    file.chmod(0o600)
    stored.ok("secrets", "passwd", "--new-password-file", str(file))
    assert "runner local restart" in refused(stored)
    stored.extra_env["RUNNER_SECRETS_PASSWORD"] = PASSWORD + "-new"
    stored.ok("local", "restart")
    lock(stored)
    assert echo(stored) == SHOWN


def test_a_restart_keeps_the_store_unlocked(stored: Instance) -> None:
    """Without the password: the key goes from daemon to daemon."""
    stored.start()
    lock(stored)
    stored.ok("local", "restart")
    assert echo(stored) == SHOWN


def test_a_changed_password_is_asked_for_at_a_restart(stored: Instance) -> None:
    """At a terminal, and only because it was changed."""
    stored.start()
    file = stored.root / "new"
    file.write_text("another-password\n")
    file.chmod(0o600)
    stored.ok("secrets", "passwd", "--new-password-file", str(file))
    lock(stored)
    terminal = Terminal(stored, ["local", "restart"], "xterm")
    terminal.wait_for("Password of the secret store")
    terminal.child.send("another-password\r")
    assert terminal.end() == 0, terminal.pump()
    assert echo(stored) == SHOWN
    terminal = Terminal(stored, ["local", "restart"], "xterm")
    assert terminal.end() == 0, terminal.pump()
    assert b"Password" not in terminal.raw


def test_a_locked_store(stored: Instance) -> None:
    """The start says so, the job says what to do, and ``restart --unlock`` does it."""
    lock(stored)
    assert "secret store: locked" in stored.start()
    assert "runner local restart --unlock" in refused(stored)
    terminal = Terminal(stored, ["local", "restart", "--unlock"], "xterm")
    terminal.wait_for("Password of the secret store")
    terminal.child.send("wrong-password\r")
    terminal.wait_for("try again")
    wait_until(terminal.hidden, 20, terminal.pump)  # said with the echo on
    terminal.child.send(PASSWORD + "\r")
    assert terminal.end() == 0, terminal.pump()
    assert PASSWORD.encode() not in terminal.raw
    assert echo(stored) == SHOWN


def test_a_store_that_is_made_later(instance: Instance) -> None:
    """A job says that the runner has to take it up."""
    instance.start()
    instance.extra_env["RUNNER_SECRETS_PASSWORD"] = PASSWORD
    instance.ok("secrets", "init")
    put(instance, "npm/tokens", "TOKEN", VALUE)
    assert "runner local restart" in refused(instance)
    instance.ok("local", "restart")
    assert echo(instance) == SHOWN


def test_a_wrong_password_starts_nothing(stored: Instance) -> None:
    """It is not tried twice, and nothing runs."""
    stored.extra_env["RUNNER_SECRETS_PASSWORD"] = "wrong-password"
    error = stored.fails("local", "start", "--no-input", code=4)
    assert "wrong password" in error
    assert "wrong-password" not in error
    stored.wait_gone(1)


def test_where_each_secret_comes_from(stored: Instance) -> None:
    """Environment before store; the start says it for each, and the value of the store follows the store."""
    put(stored, "local", "IN_STORE", VALUE)
    put(stored, "local", "IN_BOTH", VALUE)
    stored.extra_env["IN_BOTH"] = "from-env-" + VALUE
    said = stored.start("--secret", "IN_STORE", "--secret", "IN_BOTH")
    assert "IN_STORE: from the secret store\n" in said
    assert "IN_BOTH: from the environment\n" in said
    assert VALUE not in said
    text = "job_command: 'echo ${#A} ${#B}'\nenv: {A: '${secret:local:IN_STORE}', B: '${secret:local:IN_BOTH}'}\n"
    assert echo(stored, text) == f"{len(VALUE)} {len(VALUE) + 9}\n".encode()
    put(stored, "local", "IN_STORE", VALUE + "x")
    assert echo(stored, text) == f"{len(VALUE) + 1} {len(VALUE) + 9}\n".encode()


def test_a_typed_secret_is_saved(stored: Instance) -> None:
    """``--save store`` keeps it, so that the next start finds it; the value is in no file in clear."""
    terminal = Terminal(
        stored,
        ["local", "start", "--listen", "127.0.0.1:0", "--secret", "TYPED", "--save", "store"],
        "xterm",
    )
    terminal.wait_for("ANTHROPIC_API_KEY; saved in the secret store; Enter skips")
    terminal.child.send("\r")
    terminal.wait_for("TYPED; saved in the secret store; required")
    terminal.child.send(VALUE + "\r")
    assert terminal.end() == 0, terminal.pump()
    assert "TYPED: from the terminal; saved in the secret store" in terminal.pump()
    assert VALUE.encode() not in terminal.raw
    stored.stop()
    assert "TYPED: from the secret store" in stored.start("--secret", "TYPED")
    text = "job_command: 'echo ${#A}'\nenv: {A: '${secret:local:TYPED}'}\n"
    assert echo(stored, text) == f"{len(VALUE)}\n".encode()
    assert stored.files_with(VALUE.encode()) == []


def test_nothing_to_save_to(instance: Instance) -> None:
    """Without a store ``--save store`` asks nobody anything."""
    instance.extra_env["NPM_TOKEN"] = VALUE
    error = instance.fails(
        "local", "start", "--no-input", "--secret", "NPM_TOKEN", "--save", "store", code=5
    )
    assert "runner secrets init" in error
    instance.wait_gone(1)


def test_a_value_in_the_place_of_a_name(instance: Instance) -> None:
    """What was given to --secret by mistake is not repeated: the output of a start may be kept by others."""
    error = instance.fails("local", "start", "--secret", f"NPM_TOKEN={VALUE}", code=2)
    assert "name of a variable" in error
    assert VALUE not in error


def test_run_local(stored: Instance) -> None:
    """The same job, here; a value that looks like a reference or a template stays what it is."""
    done = stored.run("run-local", "--file", stored.job_file(ECHO), "--quiet")
    assert (done.returncode, done.stdout) == (0, SHOWN), done.stderr
    for value in ("${secret:b:OTHER}", r"x\1\g<0>"):
        put(stored, "npm/tokens", "TOKEN", value)
        text = ECHO.replace('echo "got=$X length=${#X}"', 'printf %s "$X" | rev')
        done = stored.run("run-local", "--file", stored.job_file(text), "--quiet")
        assert (done.returncode, done.stdout.decode()) == (0, value[::-1]), done.stderr


def test_run_local_names_all_that_is_missing(stored: Instance) -> None:
    """One message, exit 8, and nothing was started."""
    text = ECHO.replace("{X:", f"{{{LACKING}, X:")
    error = stored.fails("run-local", "--file", stored.job_file(text), "--no-input", code=8)
    for name in ("${secret:a:B}", "${secret:c/d:E}", "${secret:local:LACKING}"):
        assert name in error
    assert "npm/tokens" not in error
    assert error.count("\n") == 0


def test_run_local_without_a_store_or_its_password(instance: Instance) -> None:
    """Each says what to do."""
    path = instance.job_file(ECHO)
    assert "runner secrets init" in instance.fails("run-local", "--file", path, code=8)
    instance.extra_env["RUNNER_SECRETS_PASSWORD"] = PASSWORD
    instance.ok("secrets", "init")
    lock(instance)
    assert "RUNNER_SECRETS_PASSWORD" in instance.fails("run-local", "--file", path, code=8)


def test_run_local_asks_for_the_password_once(stored: Instance) -> None:
    """Whatever the number of references."""
    names = [f"K{number}" for number in range(40)]
    for name in names[:2]:
        put(stored, "a", name, VALUE)
    lock(stored)
    env = ", ".join(
        f"{name}: '${{secret:a:{names[number % 2]}}}'" for number, name in enumerate(names)
    )
    path = stored.job_file(f"job_command: 'echo ${{#K39}}'\nenv: {{{env}}}\n")
    terminal = Terminal(stored, ["run-local", "--quiet", "--file", path], "xterm")
    terminal.wait_for("Password of the secret store")
    terminal.child.send(PASSWORD + "\r")
    assert terminal.end() == 0, terminal.pump()
    assert terminal.pump().count("Password of") == 1
    assert terminal.raw.endswith(f"{len(VALUE)}\r\n".encode())


def test_a_value_that_no_variable_can_carry(stored: Instance) -> None:
    """The reference is named before anything starts, here and in the queue."""
    put(stored, "npm/tokens", "TOKEN", "x" * 200_000)
    error = stored.fails("run-local", "--file", stored.job_file(ECHO), code=2)
    assert "the value of ${secret:npm/tokens:TOKEN} is longer than a variable can be" in error
    stored.start()
    message = refused(stored)
    assert "the value of ${secret:npm/tokens:TOKEN} is longer than a variable can be" in message


@pytest.mark.parametrize(
    "where", ["name: 'a ${secret:a:K}'\njob_command: x", "job_command: 'echo ${secret:a:K}'"]
)
def test_a_reference_outside_env(instance: Instance, where: str) -> None:
    """It is refused with its place: the value would be seen in ps and in the record."""
    error = instance.fails("run-local", "--file", instance.job_file(where + "\n"), code=2)
    assert "job.yaml:1:" in error
    assert "env" in error


def test_a_reference_in_a_submitted_command(started: Instance) -> None:
    """The server refuses it too, and keeps nothing; what only a shell understands may pass."""
    for words in (["echo", "${secret:a:K}"], ["sh", "-c", "x ${secret:npm/tokens:TOKEN}"]):
        error = started.fails("jobs", "submit", "--", *words, code=2)
        assert "job_command" in error
        assert "env" in error
    assert started.ok("jobs", "list", "--json").strip() == "[]"
    done = started.run(
        "jobs", "submit", "--follow", "--", "bash", "-c", "secret=abcdef; echo ${secret:0:4}"
    )
    assert (done.returncode, done.stdout) == (0, b"abcd\n")
