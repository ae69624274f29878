"""References and their jobs, from outside: what a job file may not do with them, and what other processes see."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.instance import Instance
from tests.e2e.terminal import Terminal
from tests.waiting import wait_until

KEY = "canary-Zq7Zq7Zq7Zq7"


@pytest.mark.case("ref-in-mapping-key", "ref-outside-env")
@pytest.mark.parametrize(
    "text",
    [
        "job_command: x\nenv: {'${secret:a:K}': x}\n",
        "job_command: x\ncontainer_image: 'r/${secret:a:K}'\n",
        "job_command: x\ntimeout_seconds: '${secret:a:K}'\n",
    ],
)
def test_a_reference_where_none_belongs(instance: Instance, text: str) -> None:
    """The file is refused, with the place."""
    assert "job.yaml:2:" in instance.fails("run-local", "--file", instance.job_file(text), code=2)


@pytest.mark.case("ref-yaml-billion-laughs")
def test_an_environment_of_nested_anchors(instance: Instance) -> None:
    """It is refused at once, and takes no memory worth speaking of."""
    lines = ["a0: &a0 ['${secret:a:K}', x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    path = instance.job_file("\n".join(lines) + "\njob_command: x\nenv: {X: *a11}\n")
    begin = time.monotonic()
    command = f"ulimit -v 1000000; exec runner run-local --file {path}"
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=instance.env, capture_output=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert time.monotonic() - begin < 20
    assert done.stderr.count(b"\n") == 1


@pytest.mark.case("prompt-restart-needs-key")
def test_a_typed_key_survives_a_restart_in_memory_only(instance: Instance) -> None:
    """The old daemon hands it to the new one through a pipe."""
    terminal = Terminal(instance, ["local", "start", "--listen", "127.0.0.1:0"], "xterm")
    terminal.wait_for("ANTHROPIC_API_KEY")
    terminal.child.send(KEY + "\r")
    assert terminal.end() == 0, terminal.pump()
    instance.ok("local", "restart")
    path = instance.job_file(
        "job_command: 'echo ${#K} $K'\nenv: {K: '${secret:local:ANTHROPIC_API_KEY}'}\n"
    )
    assert instance.ok("jobs", "submit", "--file", path, "--follow") == f"{len(KEY)} ***\n"
    assert instance.files_with(KEY.encode()) == []


@pytest.mark.case("job-environ-visible")
def test_the_environment_of_a_job_is_readable_by_its_user(instance: Instance) -> None:
    """As docs/secrets.md says: after exec a process is dumpable again. That of its parents is not readable."""
    instance.extra_env["SEEN_KEY"] = KEY
    instance.start("--secret", "SEEN_KEY")
    path = instance.job_file("job_command: 'sleep 987.5'\nenv: {K: '${secret:local:SEEN_KEY}'}\n")
    job = instance.ok("jobs", "submit", "--file", path).strip()

    def sleeper() -> Path | None:
        for folder in Path("/proc").iterdir():
            try:
                if (folder / "cmdline").read_bytes() == b"sleep\x00987.5\x00":
                    return folder
            except OSError:
                continue
        return None

    process = wait_until(sleeper, 20)
    assert process
    assert f"K={KEY}".encode() in (process / "environ").read_bytes()
    for pid in instance.pids():
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0
        if os.geteuid() == 0:
            assert KEY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    instance.ok("jobs", "cancel", job)
    instance.wait(job)
