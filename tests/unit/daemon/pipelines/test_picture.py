"""Pictures of pipelines: names, states, times and arrows, and nothing that a name could smuggle in."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from daemon.pipelines.picture import mermaid, svg, text

ROWS: list[dict[str, Any]] = [
    {
        "id": "1",
        "name": 'b"<uild>',
        "state": "SUCCEEDED",
        "end_reason": "EXITED",
        "exit_code": 0,
        "depends_on": [],
        "start_time": "2026-01-01T00:00:00Z",
        "end_time": "2026-01-01T00:00:01.500000Z",
    },
    {
        "id": "2",
        "name": "test\x1b[2J",
        "state": "FAILED",
        "end_reason": "EXITED",
        "exit_code": 3,
        "depends_on": ["1"],
    },
    {
        "id": "3",
        "name": "tell",
        "state": "BLOCKED",
        "depends_on": ["1", "2"],
        "condition": "any_failed",
    },
    {"id": "4", "name": "later", "state": None, "depends_on": ["gone"]},
]


def test_text() -> None:
    """A line for each job, deeper for each one before it."""
    assert text(ROWS).splitlines() == [
        '✔  b"<uild>    succeeded 1.5s',
        "○  later",
        '✘    test?[2J  failed (exit 3)           after b"<uild>',
        '…      tell    blocked                   after b"<uild>, test?[2J (any_failed)',
    ]


def test_mermaid() -> None:
    """Nodes have numbers, so that no name can be a command of the chart."""
    lines = mermaid(ROWS).splitlines()

    assert lines[1] == '  j0["b&quot;&lt;uild&gt;<br/>succeeded 1.5s"]'
    assert "  j0 --> j1" in lines
    assert "  j1 -. failed .-> j2" in lines


def test_svg() -> None:
    """It is valid, and has a box for each job and an arrow for each dependency."""
    root = ET.fromstring(svg(ROWS))
    space = "{http://www.w3.org/2000/svg}"

    assert [node.text for node in root.iter(f"{space}title")] == [
        'b"<uild>',
        "test?[2J",
        "tell",
        "later",
    ]
    assert len(root.findall(f"{space}path")) == 3
