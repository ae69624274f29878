"""The wheel: what is in it, and that it works alone."""

from __future__ import annotations

import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_top_level(wheel: Path) -> None:
    """Exactly the four packages, with the generated API, its sources and the migrations."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"agent_runner", "daemon", "runner", "runnerlib", "sandbox"}
    for needed in (
        "runner/v1/job_service_pb2.py",
        "runner/v1/job_service_pb2_grpc.py",
        "runner/v1/job_service.proto",
        "daemon/jobs/migrations/0001_initial.sql",
    ):
        assert needed in names
    assert not [name for name in names if "tests" in name or name.endswith(".pyc")]


def test_no_other_distribution_owns_our_names() -> None:
    """A clash with a package of the same top-level name would break both silently."""
    owners = packages_distributions()
    for name in ("daemon", "agent_runner", "sandbox", "runnerlib"):
        assert set(owners.get(name, ["runner"])) == {"runner"}
