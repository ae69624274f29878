"""``runner config show`` where the environment says little."""

from __future__ import annotations

import json
import subprocess
import sys


def test_without_a_home_the_settings_are_shown_and_what_has_no_place_is_said():
    """Somebody who looks for what is wrong sees it, instead of an error."""
    code = "from daemon.cli.app import main; main(['config', 'show', '--json'])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert rows["local.slots"] == {"value": 2, "origin": "default"}
    assert rows["state_dir"]["value"] is None
    assert "HOME" in rows["state_dir"]["origin"]
    assert rows["config_file"]["value"] is None
