"""What a job leaves: listed and fetched by a person, and put beside the job file by run-local."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

from tests.e2e.instance import Instance

JOB = """
job_command: >-
  mkdir -p dist/sub && echo app >dist/app && chmod 750 dist/app && echo "$KEY" >dist/sub/key
  && ln -s /etc/hostname dist/link && mkfifo dist/fifo && echo log >dist/x.log; exit 3
env: {KEY: "${secret:local:KEY}"}
outputs: ["dist/**", "!**/*.log", "none/*.whl"]
"""
VALUE = "output-" + "k3y" * 9
NOTES = (
    "runner: outputs: no file matches 'none/*.whl'\n"
    "runner: outputs: not kept: dist/fifo: is no regular file; dist/link: is a link\n"
)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def found(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(folder)): (path.read_text(), path.stat().st_mode & 0o777)
        for path in folder.rglob("*")
        if path.is_file()
    }


LEFT = {"dist/app": ("app\n", 0o750), "dist/sub/key": (f"{VALUE}\n", 0o644)}


def test_outputs_of_a_failed_job(instance: Instance) -> None:
    """They are kept as they are, unmasked; links and FIFOs are named; what is there is not replaced unasked."""
    instance.extra_env["KEY"] = VALUE
    instance.start("--secret", "KEY")
    job_file = instance.job_file(JOB)
    job_id = json.loads(instance.ok("jobs", "submit", "--file", job_file, "--json"))["id"]
    ended = instance.wait(job_id)
    assert (ended["state"], ended["exit_code"]) == ("FAILED", 3)
    assert instance.log(job_id).decode() == NOTES

    listed = json.loads(instance.ok("jobs", "outputs", job_id, "--json"))
    assert listed == {
        "job_id": job_id,
        "attempt": 1,
        "outputs": [
            {"name": "dist/app", "sha256": sha256("app\n"), "size_bytes": 4, "mode": "0750"},
            {
                "name": "dist/sub/key",
                "sha256": sha256(f"{VALUE}\n"),
                "size_bytes": len(VALUE) + 1,
                "mode": "0644",
            },
        ],
        "outputs_error": "dist/fifo: is no regular file; dist/link: is a link",
    }
    assert ended["attempts"][0]["outputs_error"] == listed["outputs_error"]
    assert "not kept" in instance.ok("jobs", "show", job_id)

    target = instance.root / "fetched"
    instance.ok("jobs", "outputs", job_id, "--download", str(target), "dist/a*")
    assert found(target) == {"dist/app": LEFT["dist/app"]}
    line = instance.fails("jobs", "outputs", job_id, "--download", str(target), code=1)
    assert line.endswith("dist/app: exists already; --force replaces it")
    instance.ok("jobs", "outputs", job_id, "--download", str(target), "--force")
    assert found(target) == LEFT
    assert "no output 'nope'" in instance.fails("jobs", "outputs", job_id, "nope", code=3)
    assert "no job" in instance.fails("jobs", "outputs", "0" * 26, code=3)


def test_outputs_of_run_local(instance: Instance) -> None:
    """The same files, in `outputs` beside the job file or where it is said; a second run replaces them."""
    instance.extra_env["KEY"] = VALUE
    job_file = instance.job_file(JOB)

    for _ in range(2):
        done = instance.run("run-local", "--file", job_file)
        assert done.returncode == 3
        assert done.stdout.decode() == NOTES
        assert f"2 outputs in {instance.root / 'outputs'}" in done.stderr.decode()
        assert found(instance.root / "outputs") == LEFT
    other = instance.root / "other" / "place"
    assert (
        instance.run("run-local", "--file", job_file, "--outputs-dir", str(other)).returncode == 3
    )
    assert found(other) == LEFT
    work = instance.state / "sources" / "work"
    assert [*work.iterdir()] == []


def test_outputs_larger_than_the_operator_allows(instance: Instance) -> None:
    """A hole counts as what it claims to be; what fits is kept."""
    instance.extra_env["RUNNER_OUTPUTS_MAX_BYTES"] = "1000"
    job_file = instance.job_file(
        "job_command: dd if=/dev/zero of=big bs=1 count=1 seek=100000000; echo x >small\n"
        "outputs: {paths: ['*'], max_size: 1GiB}\n"
    )

    done = instance.run("run-local", "--file", job_file, "--quiet")

    assert done.returncode == 0, done.stderr
    assert "big: with it there are more than 1,000 bytes" in done.stdout.decode()
    assert found(instance.root / "outputs") == {"small": ("x\n", 0o644)}


CACHED = """
name: cached
job_command: "echo ran; cat main.c >app; chmod 755 app"
source_type: {kind}
source_{where}: {source}
outputs: [app]
cache: {{inputs: ["*.c"]}}
"""
HIT = "runner: cache: hit: nothing is run; job"


def test_results_that_are_used_again(started: Instance) -> None:
    """By run-local and by the daemon, of a copy and of a repository: what one has done the other need not do."""
    source = started.root / "source"
    source.mkdir()
    (source / "main.c").write_text("int main;\n")
    git = ["git", "-C", str(source), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    for kind, where, place in (("copy", "path", source), ("git", "url", f"file://{source}")):
        job_file = started.job_file(CACHED.format(kind=kind, where=where, source=place))
        run_local = ("run-local", "--quiet", "--file", job_file)
        assert started.ok(*run_local).endswith("ran\n")
        job_id = started.ok("jobs", "submit", "--file", job_file).strip()
        ended = started.wait(job_id)
        assert (ended["state"], ended["exit_code"]) == ("SUCCEEDED", 0)
        assert started.log(job_id).decode().startswith(HIT)
        target = started.root / kind
        started.ok("jobs", "outputs", job_id, "--download", str(target))
        assert found(target) == {"app": ("int main;\n", 0o755)}
        (started.root / "outputs" / "app").unlink()
        assert started.ok(*run_local).startswith(HIT)
        assert found(started.root / "outputs") == {"app": ("int main;\n", 0o755)}
        assert started.ok(*run_local, "--no-cache").endswith("ran\n")
    (source / "readme").write_text("new")
    (source / "main.c").write_text("int other;\n")
    job_file = started.job_file(CACHED.format(kind="copy", where="path", source=source))
    line = started.ok("run-local", "--quiet", "--file", job_file).splitlines()[0]
    assert line.startswith("runner: cache: miss: changed since job ")
    assert "inputs (main.c)" in line


PIPELINE = """
name: two
jobs:
  lib: {job_command: echo a >f, outputs: [f]}
  app: {job_command: echo b >f; ln -s f l, outputs: ['*'], depends_on: [lib]}
"""


def test_outputs_of_a_pipeline(instance: Instance) -> None:
    """Each job's in a folder of its name."""
    text = instance.ok("pipeline", "run", instance.job_file(PIPELINE, "two.yaml"))

    assert "runner: outputs: not kept: l: is a link" in text
    assert found(instance.root / "outputs") == {
        "lib/f": ("a\n", 0o644),
        "app/f": ("b\n", 0o644),
    }
