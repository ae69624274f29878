"""What commands that run jobs print of the warnings of their parts."""

from __future__ import annotations

import logging

from daemon.cli.output import show_warnings


def test_warnings_are_lines_for_people(monkeypatch):
    """With the name of the secret that they are about, if they are about one."""
    handler = logging.StreamHandler()
    monkeypatch.setattr(logging, "lastResort", handler)
    show_warnings()

    about = logging.LogRecord("x", logging.WARNING, "", 0, "cannot be masked", None, None)
    assert handler.format(about) == "runner: warning: cannot be masked"
    about.secret = "local:TOKEN"
    assert handler.format(about) == "runner: warning: cannot be masked: local:TOKEN"
