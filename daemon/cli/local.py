"""``runner local``: start, stop, restart, status, logs."""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import click

from daemon.cli.app import LazyGroup
from daemon.cli.output import note, print_json, print_table, printable, state_of
from daemon.errors import Interrupted, UsageError
from daemon.settings import parse_seconds

AGENT_RUNNER = "agent-runner"
PROCESS = re.compile(rf"daemon|job-server|{AGENT_RUNNER}(-[0-9]{{1,2}})?")

_TAKES_TIME = 2
"""A process that is said to be stopping so often has not stopped within two seconds."""
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
COMMANDS: dict[str, tuple[str, str]] = {
    "start": (
        "daemon.cli.local_start:start",
        "Gather the secrets, then start daemon, job server and agent-runner.",
    ),
    "restart": (
        "daemon.cli.local_start:restart",
        "Stop and start again; flags change the configuration.",
    ),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def local() -> None:
    """Start, stop and watch the local instance."""


@local.command(epilog="Example: runner local stop --drain-timeout 10s")
@click.option(
    "--drain-timeout", metavar="SECONDS", help="How long running jobs may take to end (default 60)."
)
@click.option(
    "--now", is_flag=True, help="Stop running jobs at once; they run again at the next start."
)
@click.pass_context
def stop(ctx: click.Context, drain_timeout: str | None, now: bool) -> None:
    """Drain the agent-runner, then stop all three processes."""
    from daemon.local.stop import stop_local  # noqa: PLC0415

    timeout_s = None if drain_timeout is None else seconds_of(drain_timeout)
    with goes_on("stop"):
        stop_local(state_of(ctx), timeout_s, now, print_progress if now else DrainProgress())
    print_progress({"process": "daemon", "state": "stopped"})


@local.command(epilog="Example: runner local status --json")
@JSON_OPTION
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show what runs. Exits with 3 when nothing does."""
    from daemon.local.status import status_local  # noqa: PLC0415

    document = status_local(state_of(ctx))
    if as_json:
        print_json(document)
        return
    endpoints = document["endpoints"]
    print(f"mode       {document['mode']}")
    for name, address in endpoints.items():
        print(f"{name:10} {address or '-'}")
    processes = document["processes"]
    rows = [_status_row(name, process) for name, process in processes.items()]
    print_table(("PROCESS", "STATE", "PID", "STARTED", "RESTARTS", "MEMORY", "LAST EXIT"), rows)
    for name, process in processes.items():
        _explain_fatal(name, process)


@local.command(epilog="Example: runner local logs agent-runner --follow")
@click.argument("process", required=False)
@click.option("--lines", "-n", type=click.IntRange(0), default=50, show_default=True)
@click.option("--follow", "-f", is_flag=True, help="Wait for more.")
@click.pass_context
def logs(ctx: click.Context, *, process: str | None, lines: int, follow: bool) -> None:
    """Print the runner's own logs (one process, or all)."""
    from daemon.local.log_files import local_logs, logged_processes  # noqa: PLC0415

    known = "daemon, job-server or agent-runner (the second one is agent-runner-2)"
    if follow and process is None:
        raise UsageError(f"--follow needs the name of one process: {known}")
    if process is not None and not PROCESS.fullmatch(process):
        raise UsageError(f"{process!r} is no process of the runner: expected {known}")
    for name in (process,) if process else logged_processes(state_of(ctx)):
        for line in local_logs(state_of(ctx), name, lines, follow):
            sys.stdout.write(line)
            sys.stdout.flush()


def _explain_fatal(name: str, process: Mapping[str, Any]) -> None:
    """Say why a process is given up, with the end of its log."""
    if process.get("reason"):
        print(f"\n{_label(name)} was given up: {printable(process['reason'])}")
        for line in str(process.get("log_tail") or "").splitlines():
            print(f"  {printable(line)}")


def seconds_of(text: str) -> float:
    """Return what ``--drain-timeout`` says.

    Raises:
        UsageError: It is no number of seconds.
    """
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise UsageError(f"--drain-timeout {text}: {error}") from None


@contextlib.contextmanager
def goes_on(what: str) -> Iterator[None]:
    """Say to who presses Ctrl-C that the daemon goes on with what it was told.

    Raises:
        Interrupted: In place of KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped waiting; the {what} goes on (see `runner local status`)"
        ) from None


class DrainProgress:
    """Prints the progress of a stop, and once for each process that takes its time what it waits for."""

    def __init__(self) -> None:
        self._heard: Counter[str] = Counter()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Print a line of progress; the daemon repeats every two seconds what is still stopping."""
        name = str(event.get("process", ""))
        if event.get("state") == "stopping" and name.startswith(AGENT_RUNNER):
            self._heard[name] += 1
            if self._heard[name] == _TAKES_TIME:
                note(f"{name:13} lets running jobs end (`runner local stop --now` does not)")
        print_progress(event)


def print_progress(event: Mapping[str, Any]) -> None:
    """Print one line per process as it becomes ready or stops, and the log of one that could not start."""
    if "log_tail" in event:
        for line in str(event["log_tail"]).splitlines():
            note(f"  {printable(line)}")
        return
    state, name = event.get("state"), _label(str(event.get("process", "")))
    if state == "ready":
        note(f"{name:13} pid {event['pid']}  {_facts(event)}")
    elif state in ("stopped", "fatal"):
        note(f"{name:13} {state}")


def _facts(event: Mapping[str, Any]) -> str:
    if event["process"] == "job-server":
        tcp = event.get("listen")
        return f"{tcp}, unix socket" if tcp and tcp != "none" else "unix socket"
    if event["process"].startswith(AGENT_RUNNER):
        slots = event.get("slots", 0)
        return f"{slots} slot{'' if slots == 1 else 's'}, sandbox: {event.get('sandbox')}"
    return "ready"


def pids_of(document: Mapping[str, Any]) -> str:
    """Return the processes of a status in one line."""
    return ", ".join(
        f"{_label(name)} pid {process['pid']}" for name, process in document["processes"].items()
    )


def _label(process: str) -> str:
    return "job server" if process == "job-server" else process


def _status_row(name: str, process: Mapping[str, Any]) -> tuple[str, ...]:
    memory = process["memory_bytes"]
    return (
        _label(name),
        str(process["state"]),
        str(process["pid"] or "-"),
        str(process["start_time"] or "-"),
        str(process["restarts"]),
        f"{memory / (1 << 20):.0f} MiB" if memory else "-",
        str(process["last_exit"] or "-"),
    )
