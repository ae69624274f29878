"""``runner doctor``: what is wrong with the secrets of this machine, and what to do about it."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from daemon.doctor.checks import CHECKS, run_checks
from daemon.doctor.finding import Level, Subject
from tests.e2e.instance import Instance

PASSWORD = "pw-" + secrets.token_hex(8)


def examine(instance: Instance, code: int = 0) -> dict[str, dict[str, Any]]:
    """Return the last finding of each check."""
    done = instance.run("doctor", "secrets", "--json")
    assert done.returncode == code, done.stderr.decode()
    assert PASSWORD.encode() not in done.stdout + done.stderr
    return {finding["check"]: finding for finding in json.loads(done.stdout)}


@pytest.fixture
def stored(instance: Instance) -> Instance:
    instance.extra_env["RUNNER_SECRETS_PASSWORD"] = PASSWORD
    instance.ok("secrets", "init")
    return instance


def folder(instance: Instance) -> Path:
    return instance.home / ".config" / "runner" / "secrets"


def test_a_machine_without_a_store(instance: Instance) -> None:
    """Nothing is wrong with that, and it says how to make one."""
    found = examine(instance)
    assert found["secrets.store"]["level"] == "note"
    assert "runner secrets init" in found["secrets.store"]["text"]
    assert found["secrets.masker"]["level"] == "ok"
    assert found["secrets.memory"]["level"] == "ok"
    assert found["secrets.keyring"]["text"].startswith("absent")
    assert set(found["secrets.store"]) == {"check", "level", "text", "todo"}


def test_a_good_store(stored: Instance) -> None:
    """Its place, its modes, and that the password at hand opens it."""
    found = examine(stored)
    assert {name: one["level"] for name, one in found.items() if name != "secrets.keyring"} == {
        "secrets.store": "ok",
        "secrets.modes": "ok",
        "secrets.password": "ok",
        "secrets.masker": "ok",
        "secrets.memory": "ok",
    }
    del stored.extra_env["RUNNER_SECRETS_PASSWORD"]
    assert examine(stored)["secrets.password"]["level"] == "note"


def test_a_wrong_password(stored: Instance) -> None:
    """Is a failure, and is not repeated."""
    stored.extra_env["RUNNER_SECRETS_PASSWORD"] = "not-it-" + PASSWORD
    found = examine(stored, code=1)
    assert found["secrets.password"]["level"] == "failed"


def test_a_damaged_store(stored: Instance) -> None:
    """Before any password is tried."""
    (folder(stored) / "secrets.json").write_text("{}")
    found = examine(stored, code=1)
    assert found["secrets.store"]["level"] == "failed"
    assert "secrets.password" not in found


def test_a_store_that_others_can_read(stored: Instance) -> None:
    """The command that mends it is there to copy."""
    file = folder(stored) / "secrets.json"
    file.chmod(0o644)
    found = examine(stored)["secrets.modes"]
    assert (found["level"], found["todo"]) == ("warning", f"chmod 600 {file}")


def test_a_masker_without_its_automaton(instance: Instance) -> None:
    """The fallback is named: it hides the same, slowly."""
    shim = instance.root / "shim"
    shim.mkdir()
    (shim / "ahocorasick_rs.py").write_text("raise ImportError\n")
    before = instance.env.get("PYTHONPATH")
    instance.extra_env["PYTHONPATH"] = f"{shim}:{before}" if before else str(shim)
    found = examine(instance)["secrets.masker"]
    assert found["level"] == "warning"
    assert "ahocorasick-rs" in found["todo"]


def test_a_running_installation(started: Instance) -> None:
    """Its own files are private."""
    assert examine(started)["secrets.state"]["level"] == "ok"


def test_the_table_is_for_people(instance: Instance) -> None:
    """And `runner secrets doctor` is the same."""
    text = instance.ok("doctor")
    assert text.startswith("LEVEL")
    assert "secrets.keyring" in text
    assert instance.ok("secrets", "doctor").startswith("LEVEL")


def test_every_area_is_there_and_one_that_breaks_is_a_finding(monkeypatch: Any) -> None:
    """A doctor that dies helps nobody."""
    subject = Subject({}, None)
    assert run_checks(subject, ["secrets"])
    monkeypatch.setattr("daemon.doctor.checks.CHECKS", (*CHECKS, ("broken", "daemon.nothing:no")))
    (finding,) = run_checks(subject, ["broken"])
    assert (finding.check, finding.level) == ("broken", Level.FAILED)


def test_the_sandbox(instance: Instance) -> None:
    """Its tier, and that no wall is broken."""
    done = instance.run("doctor", "sandbox", "--json")
    assert done.returncode == 0, done.stderr
    levels = {finding["check"]: finding["level"] for finding in json.loads(done.stdout)}
    assert levels.pop("sandbox.tier") in {"ok", "warning"}
    assert "failed" not in levels.values()
