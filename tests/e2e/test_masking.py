"""A job prints its secret in every way that programs have, and its log shows none of them."""

from __future__ import annotations

import json
import subprocess
import time
from base64 import b64encode
from urllib.parse import quote

import pytest

from tests.e2e.instance import Instance

VALUE = "Zq7'Kiln \"4$2x&y\\z-✓"
KEY = "\n".join(
    ["-----BEGIN OPENSSH PRIVATE KEY-----"]
    + [b64encode(bytes([65 + n]) * 48).decode() for n in range(4)]
    + ["-----END OPENSSH PRIVATE KEY-----", ""]
)
PYTHON = "/usr/bin/python3 -c 'import os, sys, json, time, urllib.parse; v = os.environ[\"S\"]; {}'"
WAYS = {
    "raw": 'printf "%s\\n" "$S"',
    "one byte per write": PYTHON.format("[os.write(1, bytes([b])) for b in v.encode()]; print()"),
    "two writes": PYTHON.format(
        "os.write(1, v[:9].encode()); time.sleep(2); os.write(1, v[9:].encode()); print()"
    ),
    "json": PYTHON.format("print(json.dumps(v)[1:-1])"),
    "json in json": PYTHON.format("print(json.dumps(json.dumps(v)[1:-1])[1:-1])"),
    "url": PYTHON.format("print(urllib.parse.quote(v))"),
    "form": PYTHON.format("print(urllib.parse.quote_plus(v))"),
    "printf %q": 'bash -c \'printf "%q\\n" "$S"\'',
    "declare -p": "bash -c 'declare -p S' | sed 's/^declare -x S=\"//; s/\"$//'",
    "hex": "printf %s \"$S\" | od -An -v -tx1 | tr -d ' \\n'; echo",
}


@pytest.fixture
def masked(instance: Instance) -> Instance:
    """An installation with both secrets in its environment."""
    instance.extra_env |= {"VALUE": VALUE, "KEY": KEY}
    return instance


def job(instance: Instance, command: str, more: str = "") -> str:
    env = "env: {S: '${secret:local:VALUE}', K: '${secret:local:KEY}'}\n"
    return instance.job_file(f"job_command: {json.dumps(command)}\n{env}{more}")


def output(instance: Instance, command: str, more: str = "") -> str:
    done = instance.run("run-local", "-q", "--file", job(instance, command, more))
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_every_way_of_printing(masked: Instance) -> None:
    """Raw, piecewise, encoded and quoted, each shows the mask and nothing beside it."""
    command = "\n".join(f"echo '== {name}'; {way}" for name, way in WAYS.items())
    shown = output(masked, command)

    assert shown == "".join(f"== {name}\n***\n" for name in WAYS)


def test_base64_at_each_alignment(masked: Instance) -> None:
    """Whatever stands around it, nothing that is certain of the value is left."""
    around = [(before, after) for before in ("", "u", "us", "user") for after in ("", ":p")]
    command = "; ".join(
        f'printf %s "{before}$S{after}" | base64 -w0; echo' for before, after in around
    )
    for (before, after), shown in zip(around, output(masked, command).splitlines(), strict=True):
        whole = b64encode(f"{before}{VALUE}{after}".encode()).decode()
        certain = range(len(before) * 2, len(whole) - 6 - 2 * len(after))
        assert "***" in shown
        assert not any(whole[at : at + 6] in shown for at in certain)


def test_traces_and_keys(masked: Instance) -> None:
    """A shell's trace, and a key of several lines as it is, on one line, and in JSON."""
    shown = output(
        masked,
        'bash -xc \': "$S"\' 2>&1; sh -xc \': "$S"\' 2>&1; printf %s "$K"; echo $K; echo; '
        "printf '%s\\n' \"$K\" | sed 's/^/web | /'; "
        "/usr/bin/python3 -c 'import json, os; print(json.dumps(os.environ[\"K\"]))'",
    )

    assert "***" in shown
    for piece in ("Kiln", "QUFB", "QkJC", "Q0ND", "RERE"):
        assert piece not in shown
    assert shown.count("web | ***") >= 4


def test_a_prompt_is_shown_at_once(masked: Instance) -> None:
    """What cannot become a secret is not held back, whatever the job waits for."""
    path = job(masked, "printf 'Password: '; sleep 3; printf 'Zq7'; sleep 3; echo x")
    with masked.popen("run-local", "-q", "--file", path, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.read(10) == b"Password: "
        shown_at = time.monotonic()
        assert running.stdout.read() == b"Zq7x\n"
        assert time.monotonic() - shown_at > 4


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("", "*** glpat-***\n"),
        ("masking: {formats: off}\n", "*** glpat-Ab3dEf6hIj9lMn2pQr5t\n"),
        ("masking: off\n", f"{VALUE} glpat-Ab3dEf6hIj9lMn2pQr5t\n"),
    ],
)
def test_a_job_says_what_is_hidden(masked: Instance, field: str, shown: str) -> None:
    """Everything, the secrets only, or nothing."""
    assert output(masked, 'echo "$S glpat-Ab3dEf6hIj9l""Mn2pQr5t"', field) == shown


def test_a_value_that_is_made_up_later(masked: Instance) -> None:
    """``::add-mask::`` hides it from there on; a variable with the name of a secret is hidden too."""
    shown = output(
        masked,
        'v=late-$((40 + 2))-value; echo "::add-mask::$v"; echo "got $v"; echo "$DB_PASSWORD"',
    )
    assert shown == "::add-mask::***\ngot ***\n\n"
    path = masked.job_file("job_command: 'echo $DB_PASSWORD'\nenv: {DB_PASSWORD: literal-pw-1}\n")
    assert masked.run("run-local", "-q", "--file", path).stdout == b"***\n"


def test_the_job_server_never_has_it(masked: Instance) -> None:
    """With daemon, server and agent-runner: neither the log nor any file holds a form of the value."""
    masked.start("--secret", "VALUE", "--secret", "KEY")
    path = job(masked, "\n".join(WAYS.values()))
    masked.run("jobs", "submit", "--wait", "--file", path)

    for form in (VALUE, quote(VALUE), json.dumps(VALUE)[1:-1], VALUE.encode().hex()):
        assert masked.files_with(form.encode()) == []
