"""The environment of a command."""

from __future__ import annotations

import pytest

from sandbox.env import base_env, command_env

BASE = base_env(name="a-1", owner="me", job_root="/job", home="/home/job", tmp="/tmp")


def test_base_holds_nothing_of_this_process(monkeypatch):
    """The base is the same whatever our own environment is."""
    monkeypatch.setenv("HOME", "/elsewhere")
    again = base_env(name="a-1", owner="me", job_root="/job", home="/home/job", tmp="/tmp")
    assert again == BASE
    assert again["HOME"] == "/home/job"


def test_requested_values_win_over_the_base():
    """A job may change PATH and the like."""
    assert command_env(BASE, {"PATH": "/x", "NEW": ""}) == {**BASE, "PATH": "/x", "NEW": ""}


def test_markers_win_over_requested_values():
    """A job may not change who it is."""
    assert command_env(BASE, {"RUNNER_SANDBOX": "x", "RUNNER_OWNER": "y"}) == BASE


@pytest.mark.parametrize("env", [{"": "x"}, {"A=": "x"}, {"A\0": "x"}, {"A": "\0"}])
def test_impossible_variables_are_refused(env):
    """What execve cannot carry is refused by name, never by value."""
    with pytest.raises(ValueError, match="environment variable"):
        command_env(BASE, env)
