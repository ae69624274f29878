"""Variables of the caller in a job's environment."""

from __future__ import annotations

import pytest

from agent_runner.secret_refs import find_refs, resolve
from daemon.cli.env_passthrough import pass_through

CALLER = {
    "A": "1",
    "EMPTY": "",
    "TRICK": "x${secret:npm:TOKEN}y",
    "secret": "no",
    "RUNNER_SECRETS_PASSWORD": "pw",
    "NPM_TOKEN": "tok-1234567890",
    "CACHE_KEY": "linux",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "1"),
        ("a${A}b${A}c", "a1b1c"),
        ("${B:-two words}", "two words"),
        ("${A:-2}", "1"),
        ("${EMPTY:-2}", "2"),
        ("${B:-}", ""),
        ("${B}", "${B}"),
        ("a ${NPM_TOKEN:-none}", "a ${secret:local:NPM_TOKEN}"),
        ("${GIT_TOKEN:-none}", "none"),
        ("${CACHE_KEY}", "linux"),
        ("$A", "$A"),
        ("${RUNNER_SECRETS_PASSWORD}", "${RUNNER_SECRETS_PASSWORD}"),
        ("$${A}", "$${A}"),
        ("${secret:npm:TOKEN}", "${secret:npm:TOKEN}"),
        ("${1A} ${A-x} ${A", "${1A} ${A-x} ${A"),
    ],
)
def test_a_value(text: str, expected: str) -> None:
    """As a shell would, but what is not there stays as it is written."""
    assert pass_through({"V": text}, CALLER) == {"V": expected}


def test_a_value_of_the_caller_is_no_reference() -> None:
    """It reaches the job as it is."""
    env = pass_through({"V": "${TRICK}"}, CALLER)
    assert find_refs(env) == []
    assert resolve(env, {}) == {"V": CALLER["TRICK"]}
