"""``run-local --dry-run``: the job as it is written, whether its secrets are there, and never a value."""

from __future__ import annotations

import json
import secrets

import pytest

from tests.e2e.instance import Instance
from tests.e2e.terminal import Terminal

PASSWORD = "pw-" + secrets.token_hex(8)
VALUE = "canary-" + secrets.token_hex(12)
LITERAL = "literal-" + secrets.token_hex(12)
JOB = f"""
name: build
job_command: [echo, "{VALUE}"]
env:
  DEBUG: "true"
  X_TOKEN: {LITERAL}
  STORED: ${{secret:a:STORED}}
  MISSING: ${{secret:a:MISSING}}
  HERE: ${{secret:local:HERE}}
"""


@pytest.fixture
def stored(instance: Instance) -> Instance:
    instance.extra_env |= {"RUNNER_SECRETS_PASSWORD": PASSWORD, "HERE": "here-" + VALUE}
    instance.ok("secrets", "init")
    instance.ok("secrets", "set", "a", "STORED", "--stdin", stdin=VALUE.encode())
    return instance


def test_references_and_their_states(stored: Instance) -> None:
    """A value is shown neither where it is referred to, nor where the file repeats it."""
    path = stored.job_file(JOB)
    done = stored.run("run-local", "--file", path, "--dry-run")
    text = done.stdout.decode()
    assert done.returncode == 8, done.stderr
    assert "secret:     ${secret:a:STORED}  found\n" in text
    assert "secret:     ${secret:a:MISSING}  missing\n" in text
    assert "secret:     ${secret:local:HERE}  found\n" in text
    assert "variable:   STORED=${secret:a:STORED}\n" in text
    assert "variable:   DEBUG=true\n" in text
    assert "variable:   X_TOKEN=***\n" in text
    assert "command:    echo ***" in text.replace("'", "")
    for hidden in (VALUE, LITERAL, PASSWORD):
        assert hidden not in text + done.stderr.decode()
    assert not (stored.state / "workspaces").exists()


def test_json(stored: Instance) -> None:
    """One document: the job, and a list of its secrets."""
    done = stored.run("run-local", "--file", stored.job_file(JOB), "--dry-run", "--json")
    document = json.loads(done.stdout)
    assert {"ref": "${secret:a:STORED}", "state": "found"} in document["secrets"]
    assert document["env"]["STORED"] == "${secret:a:STORED}"
    assert document["walls"]["tier"] in {"bwrap", "landlock"}
    assert document["walls"]["problem"] == ""
    assert document["mounts"][0] == "/job: a workspace of its own"
    assert VALUE not in done.stdout.decode()
    assert LITERAL not in done.stdout.decode()


def test_a_locked_store_is_not_opened(stored: Instance) -> None:
    """Nobody is asked, and what was not checked is no failure."""
    del stored.extra_env["RUNNER_SECRETS_PASSWORD"]
    path = stored.job_file("job_command: x\nenv: {A: '${secret:a:STORED}'}\n")
    terminal = Terminal(stored, ["run-local", "--file", path, "--dry-run"], "xterm")
    assert terminal.end() == 0
    assert "not checked" in terminal.pump()
    assert "Password" not in terminal.pump()
    terminal = Terminal(
        stored, ["run-local", "--file", path, "--dry-run", "--check-secrets"], "xterm"
    )
    terminal.wait_for("Password of the secret store")
    terminal.child.send(PASSWORD + "\r")
    assert terminal.end() == 0
    assert "${secret:a:STORED}  found" in terminal.pump()


def test_the_flags_belong_together(instance: Instance) -> None:
    """``--check-secrets`` alone is a wrong use."""
    path = instance.job_file("job_command: x\n")
    instance.fails("run-local", "--file", path, "--check-secrets", code=2)
