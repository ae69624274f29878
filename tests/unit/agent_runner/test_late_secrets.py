"""What a job can send to the socket by which it hides a value."""

from __future__ import annotations

import json

import pytest

from agent_runner.late_secrets import LateSecrets
from sandbox.masking.masker import Masker


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"5",
        b"[]",
        b"\xff",
        b"[" * 60_000,
        b'{"token": 1, "add_mask": 2}',
        b'{"token": "x", "add_mask": null}',
        b'{"token": "x", "add_mask": "\\u00e9"}',
        b'{"token": "\\ud800", "add_mask": "YWJj"}',
    ],
)
async def test_anything_else_is_refused(line: bytes) -> None:
    """Whatever a job sends, it is an answer that it gets, and nothing is raised."""
    assert json.loads(await LateSecrets(Masker()).answer(line)) == {
        "ok": False,
        "error": "the request is malformed",
    }


async def test_a_foreign_token() -> None:
    """What is not of the job registers nothing."""
    masker = Masker()
    line = b'{"token": "x", "add_mask": "c29tZS12YWx1ZQ=="}'

    answer = json.loads(await LateSecrets(masker).answer(line))

    assert answer["error"] == "the token is not that of this job"
    assert masker.snapshot() is None
