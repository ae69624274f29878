"""A secret value that no other text on earth holds, every spelling of it, and where to look for them."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import psutil

from sandbox.masking.forms import derived_forms, given_forms

MIN_FORM_BYTES = 8


def plain() -> str:
    """Return a token as services issue them."""
    return "canary-" + secrets.token_hex(16)


def nasty() -> str:
    """Return a value that every language spells in another way, with a line end in it."""
    word = secrets.token_hex(8)
    return f"c{word}'a\"n\\a$r`y <&%+/=ä{word[::-1]}\nline-{secrets.token_hex(8)}"


def spellings(value: str) -> dict[str, bytes]:
    """Return the spellings of a value that this test knows, by name; made without the product's masker."""
    raw = value.encode()
    texts = {
        "raw": value,
        "json": json.dumps(value)[1:-1],
        "json in UTF-8": json.dumps(value, ensure_ascii=False)[1:-1],
        "json twice": json.dumps(json.dumps(value))[3:-3],
        "repr": repr(value)[1:-1],
        "repr of bytes": repr(raw)[2:-1],
        "shell": shlex.quote(value),
        "in single quotes": value.replace("'", "'\\''"),
        "in double quotes": re.sub(r'([\\"$`])', r"\\\1", value),
        "url": quote(value, safe=""),
        "url with slashes": quote(value),
        "url, lower case": re.sub("%..", lambda code: code[0].lower(), quote(value, safe="")),
        "form": quote_plus(value),
        "html": html.escape(value),
        "hex": raw.hex(),
        "hex, upper case": raw.hex().upper(),
    }
    found = {name: text.encode() for name, text in texts.items()}
    for alphabet, encode in (("", base64.b64encode), ("url ", base64.urlsafe_b64encode)):
        for shift in range(3):
            encoded = encode(b"\0" * shift + raw).rstrip(b"=")
            # The characters at both ends depend on what stands beside the value.
            found[f"{alphabet}base64 at {shift}"] = encoded[(0, 2, 3)[shift] : -1]
    for number, line in enumerate(value.splitlines()):
        found[f"line {number}"] = line.encode()
    return found


def forms(value: str) -> set[bytes]:
    """Return all that must appear nowhere: this list, and that of the masker."""
    raw = value.encode()
    mine = set(spellings(value).values())
    return {
        form for form in mine | given_forms(raw) | derived_forms(raw) if len(form) >= MIN_FORM_BYTES
    }


def seen(data: bytes, values: list[str]) -> list[str]:
    """Return the spellings of values that some bytes hold."""
    return [repr(form) for value in values for form in forms(value) if form in data]


def files_with(root: Path, values: list[str]) -> list[str]:
    """Return the files below a folder that hold a spelling."""
    found = []
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            hits = seen(path.read_bytes(), values)
            found += [f"{path}: {hit}" for hit in hits]
    return found


def processes_with(values: list[str], spared: set[int]) -> list[str]:
    """Return the processes that show a spelling in their arguments or environment.

    Args:
        values: What to look for.
        spared: Processes of jobs, whose environment holds what they asked for, and this one.
    """
    found = []
    for process in psutil.process_iter():
        if process.pid in spared | {os.getpid()}:
            continue
        for name in ("cmdline", "environ"):
            try:
                data = Path(f"/proc/{process.pid}/{name}").read_bytes()
            except OSError:
                continue
            found += [f"pid {process.pid} {name}: {hit}" for hit in seen(data, values)]
    return found


def scripts(variable: str) -> Iterator[str]:
    """Yield shell commands that print a variable in many ways, on both outputs."""
    yield f'printf "%s\\n" "${variable}"'
    yield f'printf "%s\\n" "${variable}" >&2'
    yield f'set -x; : "${variable}"; set +x'
    program = (
        "import base64, html, json, os, sys, time, urllib.parse\n"
        f"v = os.environ['{variable}']\n"
        "r = v.encode()\n"
        "for text in (json.dumps(v), json.dumps({'k': json.dumps(v)}), repr(v), repr(r), urllib.parse.quote(v, ''),\n"
        "             urllib.parse.quote_plus(v), html.escape(v), r.hex(), r.hex().upper()):\n"
        "    print(text)\n"
        "for shift in range(3):\n"
        "    print(base64.b64encode(b'x' * shift + r + b'yz').decode())\n"
        "    print(base64.urlsafe_b64encode(b'x' * shift + r + b'yz').decode())\n"
        "for index in range(len(r)):\n"
        "    os.write(1, r[index:index + 1])\n"
        "    time.sleep(0.001)\n"
        "os.write(1, b'\\n')\n"
    )
    yield f"/usr/bin/env python3 -c {shlex.quote(program)}"
