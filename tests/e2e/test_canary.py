"""A unique value is sent through every path there is; afterwards it is in no file, stream, record, screen or process table."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e import canary
from tests.e2e.instance import Instance
from tests.e2e.terminal import Terminal
from tests.waiting import wait_until

PASSWORD = canary.plain()

BREAKER = """
import os
if os.environ.get("RUNNER_AGENT_NAME"):
    import sandbox.filesystem.sandbox as module

    whole = module.FilesystemSandbox.exec

    async def broken(self, request):
        values = [value for name, value in request.env.items() if name.startswith("SECRET")]
        if not values:
            return await whole(self, request)
        try:
            raise ValueError(values)
        except ValueError as error:
            raise RuntimeError(f"the provider said {values[0]!r}") from error

    module.FilesystemSandbox.exec = broken
"""


class Story:
    """One installation, its secrets, and everything that was shown."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.stored, self.nasty, self.local = canary.plain(), canary.nasty(), canary.plain()
        self.shown = bytearray()
        self.values = [self.stored, self.nasty, self.local, PASSWORD]

    def prepare(self) -> None:
        """Fill the store, and start with one more secret from the environment."""
        env = self.instance.extra_env
        env |= {"RUNNER_SECRETS_PASSWORD": PASSWORD, "LOCAL_CANARY": self.local}
        self.run("secrets", "init")
        self.run("secrets", "set", "a/b", "PLAIN", "--stdin", stdin=self.stored.encode())
        self.run("secrets", "set", "a/b", "NASTY", "--stdin", stdin=self.nasty.encode())

    def start(self) -> None:
        words = ("--no-input", "--listen", "127.0.0.1:0", "--secret", "LOCAL_CANARY")
        self.run("local", "start", *words)
        for name in ("RUNNER_SECRETS_PASSWORD", "LOCAL_CANARY"):
            del self.instance.extra_env[name]

    def run(self, *args: str, stdin: bytes = b"", code: int | None = 0) -> bytes:
        """Run a command; keep what it shows."""
        done = self.instance.run(*args, stdin=stdin)
        self.shown += done.stdout + done.stderr
        assert code is None or done.returncode == code, (
            f"{args}: {done.returncode}\n{self.masked(done.stdout + done.stderr)}"
        )
        return done.stdout

    def job(self, command: str | list[str], *, code: int | None, name: str = "job") -> str:
        """Run a job with all three secrets and show all of it; return its id."""
        env = {
            "SECRET_PLAIN": "${secret:a/b:PLAIN}",
            "SECRET_NASTY": "${secret:a/b:NASTY}",
            "SECRET_LOCAL": "x${secret:local:LOCAL_CANARY}y",
        }
        document = {"name": name, "job_command": command, "env": env}
        path = self.instance.job_file(json.dumps(document), f"{name}.json")
        job = json.loads(self.run("jobs", "submit", "--wait", "--json", "--file", path, code=code))
        for words in (("show", job["id"]), ("show", job["id"], "--json"), ("logs", job["id"])):
            self.run("jobs", *words, code=None)
        self.run("jobs", "why", job["id"], "--json", code=None)
        return str(job["id"])

    def masked(self, data: bytes) -> str:
        """Return what may be shown in the message of a failing test."""
        text = data.decode(errors="replace")
        for value in self.values:
            text = text.replace(value, "<THE CANARY>")
        return text

    def assert_clean(self) -> None:
        """Look everywhere."""
        for words in (("jobs", "list", "--json"), ("local", "logs"), ("local", "status", "--json")):
            self.run(*words, code=None)
        assert canary.seen(bytes(self.shown), self.values) == []
        assert canary.files_with(self.instance.root, self.values) == []
        assert canary.processes_with(self.values, set()) == []


@pytest.fixture
def story(instance: Instance) -> Iterator[Story]:
    made = Story(instance)
    made.prepare()
    yield made
    instance.stop()


def test_a_job_that_prints_its_secrets_in_every_way(story: Story) -> None:
    """Both outputs, traces, encodings at each alignment, a byte at a time; success, failure and death by a signal."""
    story.start()
    for variable in ("SECRET_PLAIN", "SECRET_NASTY", "SECRET_LOCAL"):
        job = story.job("\n".join(canary.scripts(variable)), code=0)
        assert story.run("jobs", "logs", job).count(b"***") > 10
    story.job('echo "$SECRET_PLAIN" >&2; exit 7', code=7)
    story.job('printf %s "$SECRET_NASTY"; kill -9 $$', code=137)
    story.assert_clean()


def test_ends_that_have_a_message(story: Story) -> None:
    """A program that is not there, a reference without a value, a time-out, a name that cannot be a folder."""
    story.start()
    story.job(["/no/such/program", "x"], code=None, name="absent")
    path = story.instance.job_file(
        "job_command: x\nenv: {A: '${secret:a/b:PLAIN}', B: '${secret:a/b:NONE}'}\n"
    )
    story.run("jobs", "submit", "--wait", "--file", path, code=8)
    path = story.instance.job_file(
        "job_command: 'echo $A; sleep 60'\ntimeout_seconds: 1\nenv: {A: '${secret:a/b:PLAIN}'}\n"
    )
    story.run("jobs", "submit", "--wait", "--file", path, code=124)
    story.assert_clean()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads the memory of other processes")
def test_while_a_job_runs(story: Story) -> None:
    """Its command line is masked where it is shown, and nobody but the job itself has the value in its process table."""
    story.start()
    script = 'echo "$A"; exec 3>&1; sh -c "sleep 30 # $A" & echo started; wait'
    path = story.instance.job_file(
        json.dumps({"job_command": script, "env": {"A": "${secret:a/b:PLAIN}"}}), "long.json"
    )
    job = story.run("jobs", "submit", "--file", path).decode().strip()
    story.instance.wait_log(job, b"started")
    why = json.loads(story.run("jobs", "why", job, "--json"))
    commands = [process["command"] for process in why["live"]["processes"]]
    assert any("sleep 30 # ***" in command for command in commands), commands
    assert canary.files_with(story.instance.root, story.values) == []
    # The command's own processes hold what it asked for; bubblewrap's do not.
    jobs = _processes_below(story.instance.pid("agent-runner"))
    assert canary.processes_with(story.values, jobs) == []
    story.run("jobs", "cancel", job)
    story.instance.wait(job)
    story.assert_clean()


def test_processes_that_die(story: Story) -> None:
    """What lies on disk after kill -9 of all three is clean, and so is what the next start makes of it."""
    story.start()
    path = story.instance.job_file(
        json.dumps(
            {
                "job_command": 'while :; do printf "%s " "$A"; sleep 0.01; done',
                "env": {"A": "${secret:a/b:PLAIN}"},
            }
        ),
        "long.json",
    )
    job = story.run("jobs", "submit", "--file", path).decode().strip()
    story.instance.wait_log(job, b"*** ***")
    story.instance.kill_all()
    story.instance.wait_gone()
    assert canary.files_with(story.instance.root, story.values) == []
    story.instance.extra_env |= {"RUNNER_SECRETS_PASSWORD": PASSWORD, "LOCAL_CANARY": story.local}
    story.start()
    story.run("jobs", "cancel", job, code=None)
    story.instance.wait(job)
    story.assert_clean()


def test_a_crash_with_the_value_in_its_traceback(story: Story) -> None:
    """The agent-runner's log has the trace, without the value; so has the record of the job."""
    shim = story.instance.root / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(BREAKER)
    before = story.instance.env.get("PYTHONPATH")
    story.instance.extra_env["PYTHONPATH"] = f"{shim}:{before}" if before else str(shim)
    story.start()
    story.job("true", code=125, name="crash")
    log = story.instance.state / "logs" / "agent-runner.log"
    text = log.read_text()
    assert "the provider said" in text
    assert "Traceback" in text
    story.assert_clean()


def test_run_local_on_a_terminal(story: Story) -> None:
    """The screen shows stars; and so does a dry run."""
    env = {
        "A": "${secret:a/b:PLAIN}",
        "B": "${secret:a/b:NASTY}",
        "C": "${secret:local:LOCAL_CANARY}",
    }
    script = (
        'printf "%s|%s|%s\\n" "$A" "$B" "$C"; python3 -c "import os; print(repr(dict(os.environ)))"'
    )
    path = story.instance.job_file(json.dumps({"job_command": script, "env": env}), "here.json")
    for words in ((), ("--dry-run",), ("--dry-run", "--json")):
        terminal = Terminal(story.instance, ["run-local", "--file", path, *words], "xterm")
        assert terminal.end() == 0, story.masked(terminal.raw)
        story.shown += terminal.raw
    assert b"***|***|***" in story.shown
    story.assert_clean()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root traces other processes")
def test_nothing_of_it_passes_the_job_server(story: Story, tmp_path: Path) -> None:
    """Neither value nor password is in any byte that the job server reads or writes, whatever the socket or file."""
    story.start()
    trace = tmp_path / "trace"
    words = ["strace", "-f", "-qq", "-s", "1000000", "-e", "trace=desc", "-o", str(trace)]
    server = story.instance.pid("job-server")
    with subprocess.Popen([*words, "-p", str(server)], stderr=subprocess.DEVNULL) as tracer:
        status = Path(f"/proc/{server}/status")
        wait_until(lambda: "TracerPid:\t0\n" not in status.read_text(), 20, "strace is attached")
        story.job('echo "from the job: $SECRET_PLAIN $SECRET_LOCAL"; exit 3', code=3)
        tracer.send_signal(signal.SIGTERM)
        tracer.wait(20)
    data = trace.read_bytes()
    assert b"from the job: ***" in data, "the trace has what passes"
    assert canary.seen(data, [story.stored, story.local, PASSWORD]) == []
    story.assert_clean()


def _processes_below(pid: int) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}
