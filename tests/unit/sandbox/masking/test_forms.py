"""The forms of a secret, against the tools that print them, and the floors."""

from __future__ import annotations

import base64
import csv
import io
import json
import secrets
import shlex
import subprocess
import time
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape, quoteattr

import pytest

from sandbox.masking.floors import is_secret_name
from sandbox.masking.forms import MAX_DERIVED_BYTES, derived_forms, given_forms
from sandbox.masking.masker import MAX_PATTERN_BYTES, MAX_SECRETS, Masker

VALUES = [
    "plain-token_01234567",
    'it\'s "quoted" & <tagged>/\\path',
    "dollar$ `back` !bang *glob? [x] {y} (z); ~#",
    "tab\tand\nnewline-here",
    "пароль-42 ünïcode ✓",
    "a+b/c=d%20e",
    "\x01\x1b[31m\x7f-control",
]


def forms(value: str) -> set[bytes]:
    return given_forms(value.encode()) | derived_forms(value.encode())


def test_what_a_table_holds():
    """The csv module doubles quotes."""
    value = 'it\'s "quoted", really'
    table = io.StringIO()
    csv.writer(table).writerow([value])

    assert table.getvalue().strip()[1:-1].encode() in forms(value)


@pytest.mark.parametrize("value", VALUES)
def test_what_python_prints(value):
    """JSON, repr, shell quoting, URLs and markup, as the standard library writes them."""
    found = forms(value)
    spelled = [json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]]
    spelled += [json.dumps(json.dumps(value)[1:-1])[1:-1], repr(value)[1:-1], quote(value)]
    spelled += [quote(value, safe=""), quote_plus(value), escape(value)]
    spelled += [shlex.quote(value).removeprefix("'").removesuffix("'"), value.encode().hex()]
    if "\n" not in value and "\t" not in value:
        spelled.append(quoteattr(value)[1:-1])

    assert [text for text in spelled if text.encode() not in found] == []


@pytest.mark.parametrize("value", VALUES)
def test_what_bash_prints(value):
    """``printf %q``, ``declare -p`` and a trace, by bash itself."""
    script = 'v=$1; printf "%q\\n" "$v"; declare -p v; set -x; : "$v"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", value],
        capture_output=True,
        check=True,
        env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )
    masker = Masker(formats=False)
    masker.add("V", value)
    shown = masker.mask_bytes(done.stdout + done.stderr).decode()

    assert shown.replace("$'***'", "***").replace("'***'", "***") in (
        '***\ndeclare -- v="***"\n+ : ***\n',
        "***\ndeclare -- v=***\n+ : ***\n",
    )


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
def test_base64_inside_any_text(before, after):
    """What does not depend on the neighbours is hidden, whatever they are."""
    value = secrets.token_bytes(23)
    whole = base64.b64encode(secrets.token_bytes(before) + value + secrets.token_bytes(after))
    masker = Masker(formats=False)
    masker.add("V", value)

    assert len(masker.mask_bytes(whole)) <= len(whole) - len(value)


@pytest.mark.parametrize("value", ["wx9Q", "a" * 8, "1234567", "short"])
def test_derived_forms_are_long(value):
    """A short value is hidden as it is only: its forms would be everyday words."""
    assert all(len(form) >= 8 for form in derived_forms(value.encode()))


def test_work_is_bounded():
    """Values of any size and in any number are taken or refused, within the caps."""
    masker = Masker()
    big = secrets.token_bytes(MAX_DERIVED_BYTES + 1).replace(b"\n", b" ")
    assert masker.add("BIG", big)
    assert masker.mask_bytes(b"<" + big + b">") == b"<***>"
    taken = [masker.add(f"S{n}", secrets.token_hex(16)) for n in range(MAX_SECRETS)]
    assert taken == [True] * (MAX_SECRETS - 1) + [False]
    assert masker.add("MORE", secrets.token_bytes(MAX_PATTERN_BYTES + 1)) is False


@pytest.mark.parametrize("name", ["NPM_TOKEN", "db_password", "AWS_SECRET_ACCESS_KEY", "X_DSN"])
def test_names_of_secrets(name):
    """A variable with such a name holds a secret by custom."""
    assert is_secret_name(name)
    assert not is_secret_name(f"{name}_FILE")


def test_many_forms_are_found_quickly():
    """Far quicker than one replacement after the other, which is what the forms would cost otherwise."""
    values = [secrets.token_urlsafe(24) for _ in range(20)]
    masker = Masker()
    for value in values:
        masker.add("V", value)
    masker.snapshot()
    every = [form for value in values for form in forms(value)]
    text = b"".join(b"line %d of a log that says nothing of interest\n" % n for n in range(40_000))
    chunks = [text[at : at + 65536] for at in range(0, len(text), 65536)]

    def seconds(feed) -> float:
        """Return the least of three, since each takes some hundredths only."""
        took = []
        for _ in range(3):
            began = time.process_time()
            for chunk in chunks:
                feed(chunk)
            took.append(time.process_time() - began)
        return min(took)

    def replaced(chunk: bytes) -> None:
        for form in every:
            chunk = chunk.replace(form, b"***")

    assert seconds(masker.stream().feed) * 2 < seconds(replaced)
