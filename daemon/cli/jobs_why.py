"""``runner jobs why``: what a job waits on, what of it runs, how it ended, and what happens next by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from daemon.cli.jobs import JSON_OPTION
from daemon.cli.output import print_json, printable, seconds_text
from daemon.cli.server_choice import connect
from daemon.clock import SystemClock

STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waits for a disk",
    "T": "stopped",
    "t": "traced",
    "Z": "zombie",
    "I": "idle",
}
"""Letters of proc_pid_stat(5)."""

Process = Mapping[str, Any]


@click.command(epilog="Example: runner jobs why JOB")
@click.argument("job_id", metavar="JOB")
@JSON_OPTION
@click.pass_context
def why(ctx: click.Context, job_id: str, as_json: bool) -> None:
    """Say why a job is where it is, and what happens next."""
    with connect(ctx) as client:
        response = client.explain(job_id)
    from daemon.job_client.explanation_dicts import explanation_dict  # noqa: PLC0415 - after grpc

    found = explanation_dict(response)
    if as_json:
        print_json(found)
        return
    for line in explained(found, SystemClock().now_us() / 1e6):
        print(line)


def explained(found: Mapping[str, Any], now_s: float) -> Iterator[str]:
    """Yield the lines for a person."""
    job, live = found["job"], found["live"]
    yield printable(f"job {job['id']} ({job['name']}) {found['summary']}")
    rows = {"state": job["state"]}
    if live:
        connected = "" if live["connected"] else ", not connected"
        rows["agent-runner"] = f"{live['agent']}{connected}"
        rows["heartbeat"] = _ago(live["heartbeat_time"], now_s) or "none yet"
        rows["lease"] = f"ends {_moment(live['lease_expire_time'], now_s)} unless it is renewed"
        output = _ago(live["output_time"], now_s)
        rows["output"] = f"{output}, {live['log_bytes']} bytes" if output else "none yet"
    if found["next_step"]:
        at = found["next_step_time"]
        rows["next"] = found["next_step"] + (f" ({_moment(at, now_s)})" if at else "")
    for key, value in rows.items():
        yield f"{key + ':':16}{printable(value)}"
    if found["waits"]:
        yield "waits for:"
        yield from (f"  {wait['kind']:14}{printable(wait['text'])}" for wait in found["waits"])
    if live:
        yield from _processes(live, now_s)


def _processes(live: Mapping[str, Any], now_s: float) -> Iterator[str]:
    if live["processes_unknown"]:
        yield f"{'processes:':16}not known: {printable(live['processes_unknown'])}"
    if live["processes"]:
        yield "processes:"
        yield f"  {'PID':>8}  {'STATE':10}{'CPU':>8}{'AGE':>9}  COMMAND"
        for process, branch in tree_of(live["processes"]):
            age = seconds_text(max(0.0, now_s - _seconds(process["start_time"])))
            state = STATES.get(process["state"], process["state"])
            cpu = seconds_text(process["cpu_seconds"])
            command = printable(process["command"])
            yield f"  {process['pid']:>8}  {state:10}{cpu:>8}{age:>9}  {branch}{command}"


def tree_of(processes: Sequence[Process]) -> Iterator[tuple[Process, str]]:
    """Yield processes, each after its parent, with the branch to draw before it."""
    pids = {process["pid"] for process in processes}
    below: defaultdict[int | None, list[Process]] = defaultdict(list)
    for process in processes:
        parent = process["parent_pid"]
        below[parent if parent in pids and parent != process["pid"] else None].append(process)
    # Without recursion: a job may nest its processes as deep as it likes.
    pending = [(process, "", "") for process in reversed(below[None])]
    while pending:
        process, branch, indent = pending.pop()
        yield process, branch
        children = below[process["pid"]]
        for child in reversed(children):
            last = child is children[-1]
            pending.append(
                (child, indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  "))
            )


def _ago(text: str | None, now_s: float) -> str | None:
    return None if text is None else f"{seconds_text(max(0.0, now_s - _seconds(text)))} ago"


def _moment(text: str, now_s: float) -> str:
    left = _seconds(text) - now_s
    words = f"in {seconds_text(left)}" if left >= 0 else f"{seconds_text(-left)} ago"
    local = datetime.fromisoformat(text).astimezone()
    return f"{words}, {local:%Y-%m-%d %H:%M:%S}"


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
