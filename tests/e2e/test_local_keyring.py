"""``local start`` and the keyring of the desktop: found there, saved there, and gone on without it."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.secrets_home import SecretsHome

VALUE = "canary-keyring-Zq7Zq7Zq7"
LENGTH = "job_command: 'echo ${#A}'\nenv: {A: '${secret:local:A_KEY}'}\n"


@pytest.fixture
def home() -> Iterator[SecretsHome]:
    """An installation without a store; what runs is stopped."""
    root = Path(tempfile.mkdtemp(prefix="runner-e2e-"))
    made = SecretsHome(root, {"RUNNER_SECRETS_PASSWORD": "<unset>"})
    yield made
    made.stop()
    made.wait_gone()
    shutil.rmtree(root)


def test_a_value_is_saved_and_found_again(home: SecretsHome) -> None:
    """The second start has it without asking, and hands it to a job; a flag leaves the keyring alone."""
    kept = home.with_secret_service()
    home.extra_env["A_KEY"] = VALUE
    said = home.start("--secret", "A_KEY", "--save", "keyring")
    assert "A_KEY: from the environment; saved in the keyring\n" in said
    assert json.loads(kept.read_text()) == {"runner/A_KEY": VALUE}
    home.stop()
    del home.extra_env["A_KEY"]
    said = home.start("--secret", "A_KEY")
    assert "A_KEY: from the keyring\n" in said
    assert VALUE not in said
    path = home.job_file(LENGTH)
    assert home.ok("jobs", "submit", "--follow", "--file", path) == f"{len(VALUE)}\n"
    home.stop()
    home.fails("local", "start", "--no-input", "--no-keyring", "--secret", "A_KEY", code=8)


@pytest.mark.case("keyring-hangs")
def test_a_locked_keyring_costs_five_seconds_once(home: SecretsHome) -> None:
    """However many secrets are wanted; then the start goes on, with one notice."""
    home.with_secret_service("locked")
    begin = time.monotonic()
    said = home.start()
    took = time.monotonic() - begin
    assert said.count("keyring: ") == 1
    assert 5 <= took < 40  # not five for each, and a start
    home.stop()
    error = home.fails("local", "start", "--no-input", "--secret", "A", "--secret", "B", code=8)
    assert error.count("keyring: ") == 1
    assert "no value for A, B" in error


@pytest.mark.case("keyring-no-backend", "keyring-bad-backend-env")
@pytest.mark.parametrize("backend", ["keyring.backends.fail.Keyring", "nope.Keyring"])
def test_no_usable_keyring(home: SecretsHome, backend: str) -> None:
    """The next source, and one notice at most."""
    home.extra_env["PYTHON_KEYRING_BACKEND"] = backend
    assert home.start().count("keyring: ") == 1


@pytest.mark.parametrize("mode", ["forgetful", "broken"])
def test_a_keyring_that_does_not_keep_what_it_is_given(home: SecretsHome, mode: str) -> None:
    """The person is told, and the start has the value all the same."""
    home.with_secret_service(mode)
    home.extra_env["A_KEY"] = VALUE
    said = home.start("--secret", "A_KEY", "--save", "keyring")
    assert "warning: not saved in the keyring" in said
    assert "A_KEY: from the environment\n" in said
    assert VALUE not in said
    path = home.job_file(LENGTH)
    assert home.ok("jobs", "submit", "--follow", "--file", path) == f"{len(VALUE)}\n"
