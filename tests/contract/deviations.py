"""What a backend does not do although the contract says so, by test, with the reason.

Strict: a deviation that passes fails the build, so this list is never longer than the truth.
"""

from __future__ import annotations

import os

from tests.contract.engine_kinds import DOCKER, PODMAN

SCRIPTED, BWRAP, LANDLOCK, PLAIN = "scripted", "bwrap", "landlock", "plain"
CONTAINER = "container"


def backend_on(engine: str) -> str:
    """Return the name of containers on a kind of engine, where that makes a difference."""
    return f"{CONTAINER}-{engine}"


_NO_WALL = "the plain tier has no walls"
_VISIBLE = "Landlock does not hide processes"

_ON_PODMAN = backend_on(PODMAN)

SANDBOX_DEVIATIONS: dict[tuple[str, str], str] = {
    (
        CONTAINER,
        "test_failed_removal_loses_no_kill",
    ): "its workspace is a volume of the engine: nothing on this host can make it stay",
    (
        _ON_PODMAN,
        "test_a_folder_that_became_a_link",
    ): "it says of a link what it says of its target; nothing but the job's own files is in reach",
    (
        _ON_PODMAN,
        "test_volumes_of_an_image_are_known_by_their_owner",
    ): "it labels no volume that an image asks for; they go with their container",
    (LANDLOCK, "test_host_processes_are_invisible"): _VISIBLE,
    (LANDLOCK, "test_job_paths_are_the_documented_ones"): "Landlock cannot mount",
    (
        LANDLOCK,
        "test_shared_memory_is_private_and_usable",
    ): "/dev/shm is the host's, so it is closed",
    (PLAIN, "test_host_processes_are_invisible"): _NO_WALL,
    (PLAIN, "test_host_processes_cannot_be_signalled"): _NO_WALL,
    (PLAIN, "test_job_paths_are_the_documented_ones"): "the plain tier cannot mount",
    (PLAIN, "test_ci_is_read_only"): _NO_WALL,
    (PLAIN, "test_ci_that_comes_between_two_commands_is_read_only"): _NO_WALL,
    (PLAIN, "test_shared_memory_is_private_and_usable"): _NO_WALL,
    (PLAIN, "test_owned_host_file_cannot_be_read"): _NO_WALL,
    (PLAIN, "test_owned_host_folder_cannot_be_written"): _NO_WALL,
    (PLAIN, "test_host_tmp_is_not_shared"): _NO_WALL,
    (PLAIN, "test_network_off_blocks_loopback"): _NO_WALL,
    (PLAIN, "test_network_off_blocks_listening"): _NO_WALL,
}
if os.geteuid() != 0:  # root gives every sandbox a user of its own
    SANDBOX_DEVIATIONS[PLAIN, "test_other_workspace_cannot_be_read"] = _NO_WALL

_METADATA = (
    "no rule of Landlock covers modes, times and attributes; root's jobs own nothing of the host"
)
_MOUNTS = "Landlock cannot except a folder below one that is allowed; changes are reported"

_ENGINE_FILTER = (
    "the engine's own filter of system calls lets it pass; `syscalls` is recorded as not held"
)
_VOLUME = "a volume is one mount; `protect` is recorded as not held"

ESCAPE_DEVIATIONS: dict[tuple[str, str], str] = {
    (CONTAINER, "allow-01"): "a container cannot keep a list of hosts: such jobs are refused",
    (
        CONTAINER,
        "fsw-20",
    ): "the file is the job user's, in a volume that is removed with the sandbox"
    " and lies where only root enters; nothing that leaves it keeps the bits",
    (CONTAINER, "git-02"): _VOLUME,
    (CONTAINER, "git-03"): _VOLUME,
    (CONTAINER, "git-05"): _VOLUME,
    (CONTAINER, "net-07"): _ENGINE_FILTER,
    (CONTAINER, "priv-18"): _ENGINE_FILTER,
    (CONTAINER, "priv-51"): _ENGINE_FILTER,
    (CONTAINER, "priv-52"): _ENGINE_FILTER,
    (backend_on(DOCKER), "priv-16"): _ENGINE_FILTER,
    (_ON_PODMAN, "priv-05"): _ENGINE_FILTER,
    (_ON_PODMAN, "priv-12"): _ENGINE_FILTER,
    (LANDLOCK, "allow-01"): "there is no proxy without a network namespace: such jobs are refused",
    (LANDLOCK, "fsw-12"): _METADATA,
    (LANDLOCK, "fsw-13"): _METADATA,
    (LANDLOCK, "fsw-14"): _METADATA,
    (LANDLOCK, "git-02"): _MOUNTS,
    (LANDLOCK, "git-03"): _MOUNTS,
    (LANDLOCK, "git-05"): _MOUNTS,
    (LANDLOCK, "net-09"): "without a network there is no socket at all, not even loopback",
    (LANDLOCK, "proc-03"): _VISIBLE,
}
"""Cases of tests/cases/escape.json that a tier, or a kind of engine, does not withstand, by (tier, case); strict as well."""
ESCAPE_RACES: dict[tuple[str, str], str] = {
    (LANDLOCK, "life-04"): "a fork storm may outrun a sweep for its five seconds",
}
"""Cases whose outcome is a race, so that they may also be withstood."""
