"""``runnerlib`` inside a job: a value that is registered late is hidden, by the socket of the job and of no other."""

from __future__ import annotations

import json

import pytest

from tests.e2e.instance import Instance

ADD = 'v=late-$((40 + 2))-value; printf "%s\\n" "$v" | runnerlib secret add; echo "code $?"; echo "got $v"'
ASK = """
import json, os, socket
def ask(request):
    s = socket.socket(socket.AF_UNIX)
    s.connect(os.environ["RUNNER_MASK_SOCKET"])
    s.sendall(request + b"\\n")
    return s.recv(4096).decode().strip()
print(ask(json.dumps({"token": "wrong", "add_mask": "bGF0ZS12YWx1ZQ=="}).encode()))
print(ask(b"no json"))
print(ask(json.dumps({"token": os.environ["RUNNER_MASK_TOKEN"], "add_mask": "dHJ1ZQ=="}).encode()))
print(oct(os.stat(os.environ["RUNNER_MASK_SOCKET"]).st_mode & 0o777))
print(os.environ["RUNNER_MASK_TOKEN"])
"""


def output(instance: Instance, command: str, more: str = "") -> list[str]:
    path = instance.job_file(f"job_command: {json.dumps(command)}\n{more}")
    done = instance.run("run-local", "-q", "--file", path)
    return done.stdout.decode().splitlines()


def test_a_late_value_is_hidden(instance: Instance) -> None:
    """From the return of the command on."""
    assert output(instance, ADD) == ["code 0", "got ***"]


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (("--sandbox-tier", "plain", "--allow-unsandboxed"), b"code 0\ngot ***\n"),
        # Its commands may use no unix socket: the value is refused, not passed over in silence.
        (("--sandbox-tier", "landlock"), b"code 1\ngot late-42-value\n"),
    ],
)
def test_in_the_other_tiers(instance: Instance, flags: tuple[str, ...], shown: bytes) -> None:
    """The socket is reached by its path on the host, or there is none."""
    instance.start(*flags)
    job_id = instance.submit(ADD)
    instance.wait(job_id)
    assert instance.log(job_id).endswith(shown)


def test_a_job_with_a_secret_has_the_program(instance: Instance) -> None:
    """It is on the PATH whatever the command's text says, for scripts that call it."""
    instance.extra_env["TOKEN"] = "given-value-1"
    more = "env: {T: '${secret:local:TOKEN}'}\n"
    assert output(instance, 'x=lib; command -v "runner$x"', more=more) == [
        "/job/.runner/bin/runnerlib"
    ]


def test_only_the_job_is_answered(instance: Instance) -> None:
    """A wrong token and what is no request are refused; the socket is the job's alone, and the token does not show."""
    instance.extra_env["TOKEN"] = "given-value-1"
    instance.extra_env["CODE"] = ASK
    more = "env: {T: '${secret:local:TOKEN}', C: '${secret:local:CODE}'}\n"
    shown = output(instance, '/usr/bin/python3 -c "$C"', more=more)

    assert [json.loads(line)["ok"] for line in shown[:3]] == [False] * 3
    assert [json.loads(line)["error"].split()[1] for line in shown[:3]] == [
        "token",
        "request",
        "is",
    ]
    assert shown[3:] == ["0o600", "***"]


def test_wrong_usage(instance: Instance) -> None:
    """A value that cannot be hidden is an exit code of 1, a wrong word one of 2."""
    shown = output(instance, "echo true | runnerlib secret add 2>/dev/null; echo $?")
    assert shown == ["1"]
    assert output(instance, "runnerlib x 2>/dev/null; echo $?") == ["2"]


def test_another_job_registers_nothing(instance: Instance) -> None:
    """The user of another job cannot connect; where all jobs are one user, the token is missing."""
    instance.start("--sandbox-tier", "plain", "--allow-unsandboxed")
    first = instance.submit(': runnerlib; echo "at $RUNNER_MASK_SOCKET;"; sleep 60')
    instance.wait_log(first, b";")
    path = instance.log(first).decode().partition("at ")[2].partition(";")[0]
    other = instance.submit(
        f"RUNNER_MASK_SOCKET={path}; export RUNNER_MASK_SOCKET; "
        "echo value-of-another | runnerlib secret add; echo $?"
    )
    instance.wait(other)
    instance.ok("jobs", "cancel", first)

    log = instance.log(other).decode()
    assert log.endswith("\n1\n")
    assert "Permission denied" in log or "token" in log
