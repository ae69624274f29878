"""Every row of the case files that the tests are to cover is covered by a test that says so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MARK = re.compile(r"mark\.case\(([^)]*)\)")
NAME = re.compile(r'"([^"]+)"')

ELSEWHERE = {
    "pw-env-not-in-children": (
        "e2e/test_secret_references.py",
        "test_a_job_sees_neither_password_nor_the_daemon_s_environment",
    ),
    "prompt-wrong-shape": (
        "unit/daemon/secrets/test_gather.py",
        "test_something_else_in_the_place_of_a_known_key",
    ),
    "crash-traceback": (
        "unit/daemon/test_logs.py",
        "test_records_of_the_daemon_are_masked_lines_of_json",
    ),
    "ref-resolve": ("e2e/test_secret_references.py", "test_a_job_gets_a_value_of_the_store"),
    "ref-value-contains-ref": ("e2e/test_secret_references.py", "test_run_local"),
    "ref-value-with-backslash-group": ("e2e/test_secret_references.py", "test_run_local"),
    "ref-outside-env": ("e2e/test_secret_references.py", "test_a_reference_outside_env"),
    "ref-dry-run": ("e2e/test_dry_run.py", "test_references_and_their_states"),
    "ref-one-derivation": (
        "e2e/test_secret_references.py",
        "test_run_local_asks_for_the_password_once",
    ),
}
"""Rows whose tests were there for reasons of their own."""


def marked(case_file: str) -> dict[str, set[str]]:
    """Return the rows of a case file, and those that tests name."""
    rows = {row["id"] for row in json.loads((TESTS / "cases" / case_file).read_bytes())}
    named = {
        name
        for path in TESTS.rglob("test_*.py")
        for mark in MARK.findall(path.read_text())
        for name in NAME.findall(mark)
    }
    return {"rows": rows, "named": named}


def test_every_row_of_the_secret_store_is_covered():
    """By a mark, or by a test that the table names and that exists."""
    found = marked("secret_store.json")
    assert found["rows"] - found["named"] - ELSEWHERE.keys() == set()
    assert found["named"] - found["rows"] == set(), "rows that no case file has"


@pytest.mark.parametrize(("path", "name"), sorted(set(ELSEWHERE.values())))
def test_tests_elsewhere_exist(path, name):
    """Under the name that the table has."""
    assert re.search(rf"def {name}\(", (TESTS / path).read_text())
