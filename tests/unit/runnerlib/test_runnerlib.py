"""``runnerlib`` as a job uses it: its commands and its module, in processes of their own, and with the oldest Python here."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import runnerlib

PACKAGE = Path(runnerlib.__file__).parent
PYTHONS = sorted(Path.home().glob(".pyenv/versions/3.8.*/bin/python3")) or [Path(sys.executable)]
IDENTITY = ("-c", "user.name=n", "-c", "user.email=e@x", "-c", "init.defaultBranch=main")


class Job:
    """A workspace, and commands in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "src").mkdir(parents=True)
        self.env = {"PATH": os.environ["PATH"], "RUNNER_JOB_ROOT": str(root), "HOME": str(root)}
        self.env["PYTHONPATH"] = str(PACKAGE.parent)

    def python(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the oldest Python that ``runnerlib`` is for."""
        return subprocess.run(
            [PYTHONS[0], *words],
            env=self.env | env,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.root,
            timeout=60,
        )

    def call(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run ``runnerlib``."""
        return self.python("-m", "runnerlib", *words, **env)

    def triggers(self) -> dict[str, object]:
        """Return what was written."""
        found: dict[str, object] = json.loads((self.root / "triggers.json").read_text())
        return found


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A workspace."""
    return Job(tmp_path / "job")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of two commits and a tag."""
    folder = tmp_path / "repository"
    for words in (
        ("init", "-q", str(folder)),
        ("-C", str(folder), "commit", "-q", "--allow-empty", "-m", "first"),
        ("-C", str(folder), "tag", "v1"),
    ):
        subprocess.run(["git", *IDENTITY, *words], check=True)
    (folder / "a").write_text("1")
    for more in (["add", "a"], ["commit", "-q", "-m", "second"]):
        subprocess.run(["git", *IDENTITY, "-C", str(folder), *more], check=True)
    return folder


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_is_written_for_python_3_8(path: Path) -> None:
    """Its syntax is that of the oldest one."""
    ast.parse(path.read_text(), feature_version=(3, 8))


def test_triggers_are_written_once_flushed(job: Job) -> None:
    """Several processes of a job add to one file; what is not flushed is not there."""
    script = """
from runnerlib.workflow import flush_triggers, trigger_job
trigger_job("a", env={"X": "1"}, depends_on=["build"], condition="success")
flush_triggers()
trigger_job("lost")
"""
    assert job.python("-c", script).returncode == 0
    done = job.call("trigger", "b", "--env", "Y=2=3", "--job-command", "true")
    assert (done.returncode, done.stderr) == (0, "")

    found = job.triggers()
    assert (found["type"], found["trigger_type"]) == ("trigger_job", "runnerlib")
    assert found["jobs"] == [
        {"job_name": "a", "env": {"X": "1"}, "depends_on": ["build"], "condition": "success"},
        {
            "job_name": "b",
            "env": {"Y": "2=3"},
            "depends_on": [],
            "condition": "all_success",
            "job_command": "true",
        },
    ]
    assert [path.name for path in job.root.glob(".workflow-*")] == []


def test_variables_come_and_go(job: Job) -> None:
    """They are read from the environment or the file, and written beside each other."""
    (job.root / "workflow-vars.json").write_text('{"A": "file"}')
    assert job.call("vars", "A").stdout == "file\n"
    assert job.call("vars", "A", RC_WF_VARS_JSON='{"A": {"b": 1}}').stdout == '{"b": 1}\n'
    assert job.call("vars", "B").stderr == "runnerlib: the workflow has no variable B\n"

    job.call("set-var", "N", "1")
    job.call("set-output", "TAG", "v1.0")

    written = json.loads((job.root / "workflow-output.json").read_text())
    assert written == {"vars": {"N": 1}, "outputs": {"TAG": "v1.0"}}


@pytest.mark.parametrize(("ref", "subject"), [("", "second"), ("v1", "first"), ("main", "second")])
def test_checkout(job: Job, repository: Path, ref: str, subject: str) -> None:
    """It goes to a branch, a tag or the default branch, and the facts are those of it."""
    done = job.call("checkout", str(repository), "--ref", ref)
    info = json.loads(job.call("git", "info", "--json").stdout)

    assert done.stdout.strip() == info["commit"]
    assert (info["subject"], info["dirty"]) == (subject, "false")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("checkout", "ext::sh -c id"), "may be an option or another program"),
        (("checkout", "--ref=--upload-pack=id", "/x"), "may be an option or another program"),
        (("checkout", "/absent"), "git clone: "),
        (("copy", "/absent"), "/absent is no folder"),
        (("copy", "."), "lies in ."),
        (("run", "--", "true"), ""),
        (("run",), "there is no command"),
        (("git", "info"), "git rev-parse: "),
        (("trigger", ""), "a triggered job needs a name"),
        (("trigger", "a", "--env", "X"), "--env must be NAME=TEXT"),
    ],
)
def test_what_cannot_be_done_is_one_line(job: Job, words: tuple[str, ...], problem: str) -> None:
    """And the exit code says that it failed."""
    done = job.call(*words)

    assert done.returncode == (1 if problem else 0)
    assert problem in done.stderr
    assert done.stderr.count("\n") == (1 if problem else 0)


def test_files_changed(job: Job, repository: Path) -> None:
    """Committed, changed and new files since another branch was left."""
    (repository / "a").write_text("2")
    (repository / "new file").write_text("")

    found = job.call("git", "files-changed", "--base", "v1", "--dir", str(repository))
    last = job.call("git", "files-changed", "--json", "--dir", str(repository))

    assert found.stdout == "a\nnew file\n"
    assert json.loads(last.stdout) == ["a", "new file"]


def test_run_prepares_the_source(job: Job, tmp_path: Path) -> None:
    """The command starts in its folder, and its exit code is that of the whole."""
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "f").write_text("hello")
    source = {"REACTORCIDE_SOURCE_TYPE": "copy", "REACTORCIDE_SOURCE_PATH": str(tmp_path / "tree")}

    done = job.call("run", "--", "sh", "-c", "cat sub/f; exit 7", **source)

    assert (done.returncode, done.stdout) == (7, "hello")
    assert job.call("cleanup").returncode == 0
    assert list(job.root.iterdir()) == []


def test_validate_names_what_is_wrong(job: Job) -> None:
    """One line for each."""
    done = job.call("validate", RUNNER_SOURCE_TYPE="svn", RUNNER_JOB_DIR="/etc")

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"runnerlib: job_dir is not below {job.root}",
        "runnerlib: source_type must be none, git or copy",
    ]


def test_the_archive_does_the_same(job: Job) -> None:
    """One file, with the module under both names."""
    archive = job.root / "runnerlib.pyz"
    assert job.call("zipapp", str(archive)).returncode == 0
    job.env.pop("PYTHONPATH")

    assert job.python(str(archive), "trigger", "a").returncode == 0
    script = "from workflow import trigger_job, flush_triggers; trigger_job('b'); flush_triggers()"
    assert job.python("-c", script, PYTHONPATH=str(archive)).returncode == 0
    assert [one["job_name"] for one in job.triggers()["jobs"]] == ["a", "b"]  # type: ignore[attr-defined]
