"""Which triggered jobs can still start once their parent has ended."""

from __future__ import annotations

import pytest

from agent_runner.triggers.graph import PARENT, Node
from daemon.cli.run_local_triggers import impossible

NODES = (
    Node(name="deploy", depends_on=(PARENT,)),
    Node(name="after", depends_on=("deploy",)),
    Node(name="tell", depends_on=("deploy",), condition="any_failed"),
    Node(name="alarm", depends_on=(PARENT,), condition="any_failed"),
    Node(name="always", depends_on=(PARENT, "after"), condition="always"),
)


@pytest.mark.parametrize(("succeeded", "late"), [(True, {"alarm"}), (False, {"deploy", "after"})])
def test_what_can_never_start(*, succeeded: bool, late: set[str]) -> None:
    """What waits for a success of a failed job, and what waits for a failure of one that succeeded."""
    assert impossible(NODES, succeeded=succeeded) == late
