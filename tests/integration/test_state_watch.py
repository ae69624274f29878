"""A running installation whose files somebody removes."""

from __future__ import annotations

import shutil

from daemon.local.status import status_local
from tests.integration.local_daemon import alive
from tests.waiting import wait_until


def test_a_state_directory_that_is_removed_ends_the_installation(local):
    """Nothing runs on that nobody could find, and the log that is written last says why."""
    local.start()
    pids = local.pids()
    shutil.rmtree(local.state.root)
    wait_until(lambda: not any(alive(pid) for pid in pids), 20)
    assert "state_dir_lost" in local.state.log_file("daemon").read_text()


def test_a_state_directory_that_is_replaced_ends_the_installation(local):
    """Another installation may have its place already: what is found there is not removed."""
    local.start()
    pids = local.pids()
    local.state.root.rename(local.state.root.with_name("moved"))
    local.state.root.mkdir(0o700)
    local.state.lock.touch()
    local.state.endpoints.write_text("{}")
    wait_until(lambda: not any(alive(pid) for pid in pids), 20)
    assert local.state.endpoints.read_text() == "{}"


def test_a_token_file_and_folders_that_are_removed_come_back(local):
    """The same token, for its owner only; clients that read it again are let in."""
    local.start()
    token = local.state.token.read_bytes()
    local.state.token.unlink()
    shutil.rmtree(local.state.spool)
    wait_until(lambda: local.state.token.exists() and local.state.spool.is_dir(), 20)
    assert local.state.token.read_bytes() == token
    assert local.state.token.stat().st_mode & 0o777 == 0o600
    assert status_local(local.state)["processes"]["daemon"]["state"] == "RUNNING"


def test_the_spool_of_each_agent_runner_comes_back(local):
    """Whichever is removed; and none is made of one that does not run."""
    local.agents = 3
    local.start()
    for number in (2, 3):
        local.state.spool_of(number).rmdir()
    wait_until(lambda: all(local.state.spool_of(n).is_dir() for n in (2, 3)), 20)
    assert local.state.spool_of(3).stat().st_mode & 0o777 == 0o700
    assert not local.state.spool_of(4).exists()
    assert "folder_restored" in local.state.log_file("daemon").read_text()
