"""``runner local``: start, stop, restart, status, logs."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Mapping
from typing import Any

import click

from daemon.cli.output import note, print_json, print_table, printable, state_of
from daemon.config import LocalConfig, environ, local_config, parse_seconds
from daemon.errors import NotRunningError, UsageError
from daemon.paths import StateDir

AGENT_RUNNER = "agent-runner"
PROCESS = re.compile(rf"daemon|job-server|{AGENT_RUNNER}(-[0-9]{{1,2}})?")
SECRET_LABELS = {"ANTHROPIC_API_KEY": "Anthropic API key"}

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
TIER = click.Choice(["auto", "bwrap", "landlock", "plain"])


def _settings(command: Any) -> Any:
    """Add the flags that ``start`` and ``restart`` share."""
    for option in reversed(
        (
            click.option(
                "--listen", metavar="HOST:PORT", help="TCP address of the job server, or none."
            ),
            click.option(
                "--slots", metavar="N", help="How many attempts an agent-runner runs at once."
            ),
            click.option("--agent-runners", metavar="N", help="How many agent-runners there are."),
            click.option("--sandbox-tier", type=TIER, help="The strongest sandbox tier to use."),
            click.option(
                "--allow-unsandboxed",
                is_flag=True,
                default=None,
                help="Let jobs run without walls where nothing better works.",
            ),
        )
    ):
        command = option(command)
    return command


@click.group()
def local() -> None:
    """Start, stop and watch the local instance."""


@local.command(epilog="Example: runner local start --secret NPM_TOKEN")
@_settings
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME",
    help="Also gather this secret; it is required.",
)
@click.option("--no-input", is_flag=True, help="Never ask for anything.")
@click.option("--foreground", is_flag=True, help="Stay in the foreground (systemd, containers).")
@click.pass_context
def start(
    ctx: click.Context,
    /,
    *,
    secrets: tuple[str, ...],
    no_input: bool,
    foreground: bool,
    **flags: Any,
) -> None:
    """Gather the secrets, then start daemon, job server and agent-runner."""
    from daemon.local.start import run_foreground, start_local  # noqa: PLC0415

    state = state_of(ctx)
    config = local_config(environ(), _keys(flags), secrets)
    running = _running(state)
    if running is not None:
        note(f"already running: {_pids(running)}")
        return
    # Whoever ends a start by a signal gets what Ctrl-C does: nothing is left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    values = _gather(config, may_ask=not no_input)
    if foreground:
        run_foreground(state, config, values)
    result = start_local(state, config, values, _progress)
    if result.already:
        note(f"already running: {_pids(result.status)}")


def _running(state: StateDir) -> dict[str, Any] | None:
    """Return the status of a daemon that is up, so that nobody is asked for secrets in vain."""
    from daemon.local.status import query_status  # noqa: PLC0415

    try:
        found = query_status(state)
    except NotRunningError:
        return None
    return found if found.pop("phase", "") == "running" else None


def _gather(config: LocalConfig, *, may_ask: bool) -> dict[str, str]:
    from daemon.secrets.gather import Ask, gather  # noqa: PLC0415
    from daemon.secrets.values import WantedSecret  # noqa: PLC0415

    ask: Ask | None = None
    if may_ask and sys.stdin.isatty():
        from daemon.secrets.prompt import ask_secret  # noqa: PLC0415 - only for a person

        ask = ask_secret
    wanted = [
        WantedSecret(
            name=wish.name, required=wish.required, description=SECRET_LABELS.get(wish.name, "")
        )
        for wish in config.secrets
    ]
    values = gather(wanted, environ(), ask, note)
    return {name: _maskable(name, value.reveal()) for name, value in values.items()}


def _maskable(name: str, value: str) -> str:
    """Return the value; say by name if it is one that no log can hide."""
    from sandbox.masking import Masker  # noqa: PLC0415 - only where there is a secret

    if not Masker().add(name, value):
        note(f"warning: {name} is too short or too common a text to be masked in logs")
    return value


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

    timeout_s = None if drain_timeout is None else _seconds(drain_timeout)
    stop_local(state_of(ctx), timeout_s, now, _progress)
    _progress({"process": "daemon", "state": "stopped"})


@local.command(epilog="Example: runner local restart --slots 4")
@_settings
@click.option(
    "--drain-timeout", metavar="SECONDS", help="How long running jobs may take to end (default 60)."
)
@click.option("--now", is_flag=True, help="Stop running jobs at once; they run again afterwards.")
@click.pass_context
def restart(ctx: click.Context, /, *, drain_timeout: str | None, now: bool, **flags: Any) -> None:
    """Stop and start again with the configuration and secrets that the daemon has; flags change it."""
    from daemon.local.restart import restart_local  # noqa: PLC0415

    config = _given(flags)
    timeout_s = None if drain_timeout is None else _seconds(drain_timeout)
    restart_local(state_of(ctx), config, {}, _progress, drain_timeout_s=timeout_s, now=now)


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


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given as flags; the others stay as the daemon has them."""
    config = local_config(environ(), _keys(flags))
    return {name: getattr(config, name) for name, value in flags.items() if value is not None}


def _keys(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {f"local.{name}": value for name, value in flags.items()}


def _seconds(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise UsageError(f"--drain-timeout {text}: {error}") from None


def _progress(event: Mapping[str, Any]) -> None:
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


def _pids(document: Mapping[str, Any]) -> str:
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
