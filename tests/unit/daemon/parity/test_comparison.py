"""What counts as a difference between two runs, and what is by design."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from daemon.parity.comparison import compare
from daemon.parity.observation import Observation, tree_of

HERE = Observation(
    kind="filesystem",
    tier="bwrap",
    end_reason="EXITED",
    exit_code=0,
    working_dir="/job/src",
    job_root="/job",
    variables=("PATH", "RUNNER_MASK_SOCKET"),
    of_sandbox=frozenset({"PATH"}),
    changes={"a": "1"},
)
THERE = replace(
    HERE,
    kind="container",
    tier="container",
    variables=("IMAGE_VERSION", "PATH"),
    of_sandbox=frozenset({"PATH", "IMAGE_VERSION"}),
)


def test_what_is_by_design():
    """Variables of the image, the socket for late secrets, and a workspace that cannot be mounted."""
    at = "/var/lib/x/1"
    landlock = replace(HERE, tier="landlock", job_root=at, working_dir=f"{at}/src")
    result = compare(landlock, THERE, ())
    assert result.same
    assert {each.name or each.what for each in result.by_design} == {
        "working_dir",
        "RUNNER_MASK_SOCKET",
        "IMAGE_VERSION",
    }


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"exit_code": 1}, "exit_code"),
        ({"end_reason": "TIMED_OUT"}, "end_reason"),
        ({"working_dir": "/job"}, "working_dir"),
        ({"variables": ("IMAGE_VERSION", "ODD", "PATH")}, "variable"),
        ({"variables": ("IMAGE_VERSION",)}, "variable"),
        ({"changes": {}}, "change"),
        ({"changes": {"a": "2"}}, "change"),
        ({"sources": {"b": "1"}}, "source"),
    ],
)
def test_what_differs(change: dict[str, Any], what: str):
    """Each on its own, and nothing else."""
    assert [each.what for each in compare(HERE, replace(THERE, **change), ()).differences] == [what]


def test_outputs_count_instead_of_changes():
    """A job that names its outputs may leave anything else."""
    here, there = replace(HERE, outputs={"o": "1"}), replace(THERE, outputs={"o": "1"}, changes={})
    assert compare(here, there, ()).same
    assert not compare(here, replace(there, outputs={}), ()).same


def test_reading_a_tree():
    """Digests, modes, links and folders; a name with a backslash is one."""
    digest = "0" * 64
    text = f"F {digest}  ./a b\nF \\{digest}  ./c\\\\d\nX ./a b\nL ./l -> a -> b\nD .\nD ./e\n"
    assert tree_of(text) == {
        "a b": f"{digest} executable",
        "c\\\\d": digest,
        "l": "-> a -> b",
        "e": "folder",
    }
