"""What can be counted pins the performance, free of noise: imports, processes, forks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.instance import Instance
from tests.waiting import wait_until

HEAVY = {
    "cryptography",
    "grpc",
    "google.protobuf",
    "keyring",
    "prompt_toolkit",
    "psutil",
    "pydantic",
    "rich",
    "ruamel.yaml",
    "ahocorasick_rs",
    "asyncio",
    "sqlite3",
    "daemon.supervisor.supervisor",
}
QUIET_LOOKS = 50
"""As many looks, a fiftieth of a second apart, find nothing new."""
PROBE = """
import json, sys
from daemon.cli.app import main
try:
    main({args!r})
except SystemExit:
    pass
print("\\n" + json.dumps(sorted(sys.modules)))
"""
NOTES_IMPORTS = r"""
import os, sys

class Notes:
    def __init__(self):
        path = os.path.join(os.path.dirname(__file__), str(os.getpid()))
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def find_spec(self, name, path=None, target=None):
        os.write(self.fd, name.encode() + b"\n")

sys.meta_path.insert(0, Notes())
"""
"""As ``sitecustomize`` it writes down what each process imports that starts with its folder in PYTHONPATH."""
UNUSED_AT_REST = {
    "ssl",
    "typing_extensions",
    "google.protobuf.text_format",
    "pydantic",
    "ruamel.yaml",
    "cryptography",
    "shutil",
    "tempfile",
    "platform",
}
MODULES_AT_REST = {
    "daemon": ({"grpc", "google.protobuf", "hashlib"}, 185),
    "job-server": ({"agent_runner.config", "sandbox.base"}, 325),
    "agent-runner": ({"hashlib", "sandbox.container.provider"}, 345),
}
"""What each of them has not imported after a first job, beside the above, and how many modules it has at most."""


def modules_of(instance: Instance, *args: str) -> set[str]:
    """Return the modules that a command has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(args=list(args))],
        env=instance.env,
        capture_output=True,
        timeout=60,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "args", [("--help",), ("--version",), ("secrets", "--help"), ("local", "status", "--json")]
)
def test_light_commands_import_little(started: Instance, args: tuple[str, ...]) -> None:
    """Help, version and status load nothing heavy and at most 40 modules that are not Python's own."""
    modules = modules_of(started, *args)
    assert modules & HEAVY == set()
    ours = {name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names}
    assert len(ours) <= 40, sorted(ours)


@pytest.mark.parametrize("args", [("jobs", "list"), ("jobs", "submit", "--file", "FILE")])
def test_job_commands_import_grpc_and_no_more(started: Instance, args: tuple[str, ...]) -> None:
    """The server reads job files, so a submit needs neither the YAML parser nor the models."""
    path = started.job_file("job_command: 'true'\n")
    modules = modules_of(started, *(path if arg == "FILE" else arg for arg in args))
    assert "grpc" in modules
    unwanted = HEAVY - {"grpc", "google.protobuf", "asyncio", "sqlite3"}
    assert modules & unwanted == set()


def test_run_local_reads_no_job_file_twice(instance: Instance) -> None:
    """Once a job file is known, a run needs neither the models nor the YAML parser, nor TLS or a store of secrets."""
    path = instance.job_file("job_command: /bin/true\n")
    args = ("run-local", "--quiet", "--file", path)
    for _ in range(2):  # the first one makes the state directory
        instance.run(*args)
    light = HEAVY - {"asyncio", "ahocorasick_rs"} | {"ssl", "daemon.secrets.gather"}
    assert modules_of(instance, *args) & light == set()


def test_processes_that_rest_have_imported_little(instance: Instance, tmp_path: Path) -> None:
    """Each module costs every start and the memory at rest; what one job in a hundred wants is imported by that job."""
    (tmp_path / "sitecustomize.py").write_text(NOTES_IMPORTS)
    instance.extra_env["PYTHONPATH"] = str(tmp_path)
    instance.start()
    instance.wait(instance.submit("true"))
    for process, (unused, most) in MODULES_AT_REST.items():
        modules = set((tmp_path / str(instance.pid(process))).read_text().split())
        assert modules & (unused | UNUSED_AT_REST) == set(), process
        assert len(modules) <= most, (process, len(modules))


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")
def test_one_process_per_job_and_no_fork_of_ours(instance: Instance, tmp_path) -> None:
    """A job without walls costs one fork of a helper of a few pages; the agent-runner itself makes no process."""
    instance.start("--sandbox-tier", "plain", "--allow-unsandboxed")
    for _ in range(2):  # the first one is spawned by vfork
        instance.wait(instance.submit("true"))
    trace = tmp_path / "trace"
    calls = "trace=fork,vfork,clone,clone3"
    agent = instance.pid("agent-runner")
    helper = _child_of(agent)
    with subprocess.Popen(
        ["strace", "-f", "-q", "-e", calls, "-o", trace, "-p", str(agent), "-p", str(helper)],
        stderr=subprocess.PIPE,
    ) as tracer:
        for pid in (agent, helper):
            wait_until(partial(_traced, str(pid)), 30, "strace is attached")
        ended = json.loads(instance.ok("jobs", "submit", "--wait", "--json", "--", "/bin/true"))
        tracer.terminate()
        tracer.wait(30)
    assert ended["sandbox"]["tier"] == "plain"
    spawned = [
        line
        for line in trace.read_text().splitlines()
        if re.search(r"\b(fork|vfork|clone3?)\(", line)
    ]
    processes = [line for line in spawned if "CLONE_THREAD" not in line]
    assert [line.split()[0] for line in processes] == [str(helper)], processes
    assert "CLONE_PARENT" in processes[0], processes


def _child_of(agent: int) -> int:
    """Return the helper of an agent-runner that runs nothing."""
    (pid,) = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    return int(pid)


def test_fifty_jobs_leave_no_descriptor_open(started: Instance) -> None:
    """The agent-runner has as many open files after fifty jobs as before, once each lane has been used and holds its folder."""

    def submit(count: int) -> None:
        started.ok("jobs", "submit", "--count", str(count), "--wait", "--", "true", timeout=120)

    folder = f"/proc/{started.pid('agent-runner')}/fd"

    def open_files() -> list[str]:
        # Named by what they are, not by their numbers: sockets and pipes of one job look like those of the next.
        names = (os.path.join(folder, name) for name in os.listdir(folder))
        return sorted(re.sub(r"\d+", "N", _target(name)) for name in names)

    looks: list[list[str]] = []

    def settled() -> bool:
        # What is built ahead for the next job has files, too, and comes a moment after the last one.
        looks.append(open_files())
        return len(looks) > QUIET_LOOKS and all(look == looks[-1] for look in looks[-QUIET_LOOKS:])

    submit(50)
    wait_until(lambda: not started.spooled(), 30, "the spool is empty")
    wait_until(settled, 60, lambda: str(looks[-2:]))
    before = looks[-1]
    submit(50)
    wait_until(lambda: len(open_files()) <= len(before), 30, lambda: f"{before}\n{open_files()}")


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


def _traced(pid: str) -> bool:
    with open(f"/proc/{pid}/status") as status:
        return "TracerPid:\t0\n" not in status.read()
