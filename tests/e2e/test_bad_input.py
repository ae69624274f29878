"""Bad input: one clear line each, the right exit code, no traceback, and nothing lost."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.e2e.instance import RUNNER, Instance

FILES = {
    "malformed YAML": ("job_command: [unclosed\n", ":2:1: "),
    "unknown field": ("job_comand: echo\n", ":1:1: job_comand"),
    "wrong type": ("job_command: echo\ntimeout_seconds: soon\n", ":2:18: timeout_seconds"),
    "no command": ("name: x\n", "job_command"),
    "empty command": ("job_command: ''\n", "job_command"),
    "NUL byte": ('job_command: "echo \\0"\n', "NUL"),
    "bad variable name": ("job_command: echo\nenv: {1X: a}\n", ":2:"),
    "later feature": ("job_command: echo\ngates: [a]\n", ":2:1: gates"),
    "a list": ("- a\n", ":1:1: "),
    "nothing": ("", "empty"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("command", [("run-local",), ("jobs", "submit")])
def test_a_bad_job_file_names_the_place(
    started: Instance, kind: str, command: tuple[str, ...]
) -> None:
    """Both ways to run a file give the same line: file, position, field; exit 2; and no job exists."""
    text, expected = FILES[kind]
    path = started.job_file(text)
    error = started.fails(*command, "--file", path, code=2)
    assert f"{path}:" in error
    assert expected in error, error
    assert json.loads(started.ok("jobs", "list", "--json")) == []


def test_a_suggestion_for_a_typo(started: Instance) -> None:
    """An unknown field comes with the one that was probably meant."""
    error = started.fails(
        "jobs", "submit", "--file", started.job_file("job_comand: echo\n"), code=2
    )
    assert "job_command" in error.split("did you mean")[1]


def test_a_missing_file(started: Instance) -> None:
    """It is named, with exit 2."""
    assert "no-such.yaml" in started.fails("jobs", "submit", "--file", "no-such.yaml", code=2)
    assert "no-such.yaml" in started.fails("run-local", "--file", "no-such.yaml", code=2)


def test_unknown_jobs(started: Instance) -> None:
    """An id that nobody has is exit 3, whatever is asked of it."""
    for command in ("show", "logs", "cancel", "wait"):
        error = started.fails("jobs", command, "nosuchjob", code=3)
        assert "nosuchjob" in error, command


def test_a_wrong_token(started: Instance) -> None:
    """The server refuses it with a line that says so."""
    (started.state / "token").write_text("wrong")
    assert "token" in started.fails("jobs", "list", code=1)


def test_a_command_that_is_too_large(started: Instance) -> None:
    """A file over the bound is refused before it is sent."""
    path = started.job_file("job_command: echo\n# " + "x" * (300 << 10) + "\n")
    assert "256 KiB" in started.fails("jobs", "submit", "--file", path, code=2)


def test_a_used_request_id(started: Instance) -> None:
    """The same submit again is the same job; another payload is refused."""
    first = started.ok("jobs", "submit", "--request-id", "r1", "--", "echo", "a").strip()
    again = started.ok("jobs", "submit", "--request-id", "r1", "--", "echo", "a").strip()
    assert first == again
    assert "r1" in started.fails("jobs", "submit", "--request-id", "r1", "--", "echo", "b", code=1)


def test_cancel_of_an_ended_job(started: Instance) -> None:
    """It has ended already, and that is said."""
    job_id = started.submit("true")
    started.wait(job_id)
    assert "ended" in started.fails("jobs", "cancel", job_id, code=1)


def test_one_that_cannot_be_cancelled_keeps_no_other(started: Instance) -> None:
    """Cancel goes on, names what failed, and exits with its code."""
    ended = started.submit("true")
    started.wait(ended)
    running = started.submit("sleep 300")
    error = started.fails("jobs", "cancel", ended, running, code=1)
    assert ended in error
    assert started.wait(running)["state"] == "CANCELLED"


def test_a_secret_that_cannot_be_masked_is_named(instance: Instance) -> None:
    """A value that is too short is said at the start, by name."""
    instance.extra_env["PIN"] = "abc"
    assert "PIN is too short" in instance.start("--secret", "PIN")


def test_closed_standard_streams_cost_no_lock(instance: Instance) -> None:
    """A start with a closed input holds the lock all the same: a second one finds it running."""
    command = 'exec "$0" local start --no-input --listen 127.0.0.1:0 <&-'

    def start() -> subprocess.CompletedProcess[bytes]:
        words = ["/bin/sh", "-c", command, RUNNER]
        return subprocess.run(words, env=instance.env, capture_output=True, timeout=60, check=False)

    assert start().returncode == 0
    done = start()
    assert done.returncode == 0, done.stderr
    assert b"already running" in done.stderr


def test_an_output_that_cannot_be_written_is_a_failure(instance: Instance) -> None:
    """A lost answer is one line and exit 1, not a success."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [RUNNER, "config", "show"],
            env=instance.env,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr


def test_bad_words_on_the_command_line(instance: Instance) -> None:
    """Unknown commands and options are exit 2 with a hint."""
    assert "--help" in instance.fails("jobs", "submit", "--nope", code=2)
    instance.fails("nope", code=2)
    instance.fails("jobs", "submit", code=2)
    instance.fails("local", "start", "--listen", "0.0.0.0:1", "--no-input", code=2)
    instance.fails("local", "start", "--slots", "0", "--no-input", code=2)


def test_a_missing_required_secret(instance: Instance) -> None:
    """Without a terminal: exit 8, its name and where it may come from; nothing is left running."""
    error = instance.fails("local", "start", "--no-input", "--secret", "NPM_TOKEN", code=8)
    assert "NPM_TOKEN" in error
    assert "environment" in error
    instance.fails("local", "status", code=3)


def test_a_job_whose_secret_is_missing(started: Instance) -> None:
    """It fails by name before anything runs; nothing of the environment is used instead."""
    path = started.job_file(
        "job_command: echo\nenv: {A: '${secret:local:NOPE}', B: '${secret:local:NADA}'}\n"
    )
    done = started.run("jobs", "submit", "--file", path, "--wait", "--json")
    job = json.loads(done.stdout)
    assert (job["state"], job["end_reason"], done.returncode) == ("FAILED", "SECRET_MISSING", 8)
    assert "NOPE" in job["message"]
    assert "NADA" in job["message"]


def test_a_database_of_a_newer_version(instance: Instance) -> None:
    """It is refused with a clear line and left as it is."""
    import sqlite3

    instance.start()
    instance.ok("local", "stop")
    database = instance.state / "runner.db"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    done = instance.run("local", "start", "--no-input", "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert "newer" in done.stderr.decode()
    assert "999" in done.stderr.decode()
    instance.wait_gone()
