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


def test_values_are_shown_as_people_write_them(tmp_path):
    """Not as Python does; what is empty is a dash."""
    file = tmp_path / "config.toml"
    file.write_text("[containers]\nextra_hosts = ['db=10.1.2.3', 'web=10.1.2.4']\ncache = true\n")
    code = "from daemon.cli.app import main; main(['config', 'show'])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "RUNNER_CONFIG": str(file)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    values = {name: rest.removesuffix(f"file {file}").strip() for name, rest in shown}
    assert values["containers.extra_hosts"] == "db=10.1.2.3, web=10.1.2.4"
    assert values["containers.cache"] == "true"
    for name, value in {
        "allow_privileged": "false",
        "execution_mode": "-",
        "registries": "-",
    }.items():
        assert values[f"containers.{name}"].split()[0] == value
    assert values["client.server"].split()[0] == "-"
    assert not [line for line in done.stdout.splitlines() if "()" in line or "False" in line]
