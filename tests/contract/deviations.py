"""What a backend does not do although the contract says so, by test, with the reason.

Strict: a deviation that passes fails the build, so this list is never longer than the truth.
"""

from __future__ import annotations

import os

SCRIPTED, BWRAP, LANDLOCK, PLAIN = "scripted", "bwrap", "landlock", "plain"

_NO_WALL = "the plain tier has no walls"
_VISIBLE = "Landlock does not hide processes"

SANDBOX_DEVIATIONS: dict[tuple[str, str], str] = {
    (LANDLOCK, "test_host_processes_are_invisible"): _VISIBLE,
    (
        LANDLOCK,
        "test_job_root_itself_is_writable",
    ): "rights reach down, so ci would be writable too",
    (LANDLOCK, "test_job_paths_are_the_documented_ones"): "Landlock cannot mount",
    (
        LANDLOCK,
        "test_shared_memory_is_private_and_usable",
    ): "/dev/shm is the host's, so it is closed",
    (PLAIN, "test_host_processes_are_invisible"): _NO_WALL,
    (PLAIN, "test_host_processes_cannot_be_signalled"): _NO_WALL,
    (PLAIN, "test_job_paths_are_the_documented_ones"): "the plain tier cannot mount",
    (PLAIN, "test_ci_is_read_only"): _NO_WALL,
    (PLAIN, "test_shared_memory_is_private_and_usable"): _NO_WALL,
    (PLAIN, "test_owned_host_file_cannot_be_read"): _NO_WALL,
    (PLAIN, "test_owned_host_folder_cannot_be_written"): _NO_WALL,
    (PLAIN, "test_host_tmp_is_not_shared"): _NO_WALL,
    (PLAIN, "test_network_off_blocks_loopback"): _NO_WALL,
    (PLAIN, "test_network_off_blocks_listening"): _NO_WALL,
}
if os.geteuid() != 0:  # root gives every sandbox a user of its own
    SANDBOX_DEVIATIONS[PLAIN, "test_other_workspace_cannot_be_read"] = _NO_WALL
