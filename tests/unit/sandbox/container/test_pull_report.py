"""The lines of a job's log about its image: few, whatever the engine says."""

from __future__ import annotations

from sandbox.container.pull_report import PullProgress, PullReport

IMAGE = "registry.test/tool:1"


def said(layer: str, status: str, current: int = 0, total: int = 0) -> PullProgress:
    """Return one line of an engine."""
    return PullProgress(
        image=IMAGE, layer=layer, status=status, current_bytes=current, total_bytes=total
    )


def test_a_line_per_some_seconds():
    """Two thousand events of two layers in eleven seconds are four lines."""
    now = 0.0
    lines: list[str] = []
    report = PullReport(IMAGE, lines.append, lambda: now)
    for layer in "ab":
        report.take(said(layer, "Pulling fs layer"))
    for step in range(1000):
        now = step * 0.011
        report.take(said("a", "Downloading", step * 30_000, 30_000_000))
        report.take(said("b", "Downloading", step * 1000, 1_000_000))
    report.take(said("b", "Download complete"))
    report.take(said("b", "Pull complete"))
    report.end()
    assert lines == [
        f"fetching the image {IMAGE}",
        f"fetching the image {IMAGE}: 0 of 2 layers, 14 of 31 MB",
        f"fetching the image {IMAGE}: 0 of 2 layers, 28 of 31 MB",
        f"fetched the image {IMAGE} in 11 s: 2 of 2 layers, 31 of 31 MB",
    ]


def test_an_image_that_is_up_to_date():
    """Nothing comes, so nothing is said."""
    lines: list[str] = []
    report = PullReport(IMAGE, lines.append)
    for status in ("Pulling from team/tool", "Digest: sha256:1", "Status: Image is up to date"):
        report.take(said("1", status))
    report.end()
    assert lines == []
