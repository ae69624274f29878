"""Small readings: names of images, and the engine's table of processes."""

from __future__ import annotations

import pytest

from sandbox.container import launcher
from sandbox.container.images import split_reference
from sandbox.container.processes import processes_in


@pytest.mark.parametrize(
    ("name", "repository", "tag"),
    [
        ("debian", "debian", "latest"),
        ("debian:12", "debian", "12"),
        ("registry:5000/team/tool", "registry:5000/team/tool", "latest"),
        ("registry:5000/team/tool:1.2", "registry:5000/team/tool", "1.2"),
        ("tool@sha256:abc", "tool", "sha256:abc"),
        ("registry:5000/tool:1@sha256:abc", "registry:5000/tool:1", "sha256:abc"),
    ],
)
def test_a_name_is_split_where_the_registry_splits_it(name, repository, tag):
    """A colon before the last slash is a port."""
    assert split_reference(name) == (repository, tag)


@pytest.mark.parametrize("words", [launcher.words("end"), launcher.resident_words(["/data"])])
def test_init_and_launcher_are_not_shown(words):
    """A person asks for the command's processes, the oldest first."""
    launched = " ".join(words)
    rows = [
        ["100", "99", "S", "0", "9", "/sbin/docker-init -- " + launched],
        ["107", "100", "S", "0", "9", launched],
        ["109", "108", "R", "3", "4", "cc", "a.c"],
        ["108", "107", "S", "0", "8", "make"],
        ["110", "100", "S", "0", "2", "sleep 5"],
        ["short"],
    ]
    shown = processes_in({"Titles": [], "Processes": rows})
    assert [(one.pid, one.parent_pid, one.command) for one in shown] == [
        (108, 107, "make"),
        (109, 108, "cc a.c"),
        (110, 100, "sleep 5"),
    ]
    assert (shown[1].cpu_s, shown[1].state) == (3.0, "R")
    assert processes_in({"Processes": None}) == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("0s", 0.0),
        ("2.5s", 2.5),
        ("1h2m3.25s", 3723.25),
        ("4m0s", 240.0),
        ("250.5ms", 0.2505),
        ("40µs", 4e-5),
    ],
)
def test_times_are_read_as_each_engine_writes_them(text, seconds):
    """Seconds of ps, and durations of Podman."""
    (shown,) = processes_in(
        {"Processes": [["8", "1", "R", text, "0", "make"], ["1", "0", "S", "0", "0", "init"]]}
    )
    assert shown.cpu_s == pytest.approx(seconds)
