"""What a dry run tells of a job file: commands that act elsewhere, and what the command would find where."""

from __future__ import annotations

import pytest

from agent_runner.job_spec import JobSpec, SourceSpec
from daemon.cli.dry_walls import mounts
from daemon.cli.remote_commands import remote_commands


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("make && git push origin main", ["git push"]),
        ("git -C x -c http.extraHeader=s3cret push\ngit push", ["git push"]),
        ("gh pr   create --fill; gh pr list", ["gh pr create", "gh pr list"]),
        ("docker push a/b && npm publish", ["docker push", "npm publish"]),
        ("kubectl get pods; kubectl apply -f x", ["kubectl apply"]),
        ("  # git push\n./git push; git stash push; mygit push; git push-all", []),
        ("echo pushed", []),
    ],
)
def test_commands_that_act_elsewhere_are_found(text: str, found: list[str]) -> None:
    """Those of the file itself, without what stands between their words."""
    assert remote_commands(("/bin/sh", "-c", text)) == found


def test_a_command_of_words_is_looked_at_too() -> None:
    """The same without a shell."""
    assert remote_commands(("git", "push", "origin")) == ["git push"]


def test_what_is_put_into_the_sandbox_is_told() -> None:
    """Sources, and the outputs of other jobs."""
    job = JobSpec(
        argv=("x",),
        source=SourceSpec(kind="copy", path="/srv/x"),
        ci_source=SourceSpec(kind="git", url="https://h/ci"),
        depends_on=("a1",),
        inputs=("build",),
    )
    assert mounts(job, "host")[1:4] == [
        "/job/src: source, a copy of /srv/x",
        "/job/ci (read-only): trusted source, https://h/ci at its default branch",
        "/job/inputs: outputs of build",
    ]
