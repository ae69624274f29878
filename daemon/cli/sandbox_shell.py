"""``runner sandbox shell``: a shell where the command of a job would be, to look around with its files, variables and walls."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemon.cli.job_input import JobDocument, Overlays, overlay_options, read_job_file
from daemon.cli.output import note, printable, state_of
from daemon.cli.secret_search import SecretSearch, search_options
from daemon.cli.terminal_filter import shown_on
from daemon.cli.verdict import describe, exit_status
from daemon.config import environ
from daemon.errors import UsageError

if TYPE_CHECKING:
    from agent_runner.job_spec import JobSpec
    from agent_runner.outcome import Outcome
    from daemon.cli.run_local_place import Place
    from daemon.cli.terminal_relay import PipeRelay, TerminalRelay
    from sandbox.base import Capabilities

_SHELLS = ("/bin/bash", "/bin/sh")
_LEADER = "/usr/bin/setsid"
"""Makes the terminal that it has the one of a new session, so that the shell can have jobs in it (util-linux)."""
_WITHOUT_FILE = b"name: shell\njob_command: sh\n"
_LONGEST_S = 7 * 24 * 3600.0


@click.command(epilog="Example: runner sandbox shell --file job.yaml")
@click.option(
    "--file",
    "-f",
    "file",
    metavar="FILE",
    help="The job file (default: a job that says nothing of its sandbox).",
)
@overlay_options
@search_options
@click.option(
    "--allow-unsandboxed", is_flag=True, help="Open it without walls if this host can build none."
)
@click.pass_context
def shell(
    ctx: click.Context,
    *,
    file: str | None,
    overlays: Overlays,
    search: SecretSearch,
    allow_unsandboxed: bool,
) -> int:
    """Open a shell in the sandbox that the job of a file would get; exit with its exit code.

    Without a terminal it reads its commands from standard input, and its output is masked.
    """
    from agent_runner.hardening import harden  # noqa: PLC0415 - as late as it is needed
    from daemon.cli.run_local_place import CONTAINER, PlaceFlags, choose_place  # noqa: PLC0415

    if file == "-":
        raise UsageError("standard input is the shell's: name a job file")
    document = (
        JobDocument("shell", _WITHOUT_FILE, Path.cwd()) if file is None else read_job_file(file)
    )
    spec = overlays.load(document, to_run_here=True)
    place = choose_place(spec, PlaceFlags(), allow_unsandboxed=allow_unsandboxed)
    if place.kind == CONTAINER:
        raise UsageError(
            "this job runs in a container, where no shell is opened; see MODE and sandbox.kind"
        )
    harden()
    relay = _relay()
    place = replace(place, spec=_with_shell(place.spec))
    outcome = _run(ctx, place, search, relay)
    if outcome.exit_code is None:
        message = describe(outcome.end_reason, outcome.exit_code, outcome.message)
        note(f"runner: {printable(message)}")
    return exit_status(outcome.end_reason, outcome.exit_code)


def _relay() -> PipeRelay | TerminalRelay:
    from daemon.cli.terminal_relay import PipeRelay, TerminalRelay  # noqa: PLC0415

    return TerminalRelay() if _on_terminal() else PipeRelay(0, shown_on(sys.stdout))


def _on_terminal() -> bool:
    """Tell whether a person types and looks. By number: either may be closed."""
    return os.isatty(0) and os.isatty(1)


def _with_shell(spec: JobSpec) -> JobSpec:
    """Return the job with a shell for its command, which a person has time in."""
    argv: tuple[str, ...] = next((path,) for path in _SHELLS if os.access(path, os.X_OK))
    env = dict(spec.env)
    if _on_terminal():
        argv = (_LEADER, "--ctty", "--wait", *argv)
        env.setdefault("TERM", environ().get("TERM", "dumb"))
    return replace(spec, argv=argv, env=env, timeout_s=_LONGEST_S, idle_timeout_s=None)


def _run(
    ctx: click.Context, place: Place, search: SecretSearch, relay: PipeRelay | TerminalRelay
) -> Outcome:
    from agent_runner.one_shot import OneShot, run_one_shot  # noqa: PLC0415
    from agent_runner.secret_source import GivenSecrets  # noqa: PLC0415
    from daemon.cli.run_local_secrets import find_secrets  # noqa: PLC0415
    from daemon.jobs.ids import new_job_id  # noqa: PLC0415

    state = state_of(ctx)
    state.prepare()
    shot = OneShot(
        job_id=new_job_id(),
        spec=place.spec,
        # Asked for before the terminal is the shell's.
        secrets=GivenSecrets(find_secrets(place.spec, search)),
        workspaces=state.workspaces,
        source_dir=state.sources,
        owner_label=state.id,
        stdin=relay.stdin,
        tier=str(place.config["local.sandbox_tier"].value),
        allow_plain=place.config["local.allow_unsandboxed"].value is True,
    )
    with relay:
        return run_one_shot(shot, relay.show, lambda found: _announce(found, relay))


def _announce(found: Capabilities, relay: PipeRelay | TerminalRelay) -> None:
    walls = ", ".join(str(wall) for wall in found.walls_not_held)
    lacking = f"; walls not held here: {walls}" if walls else ""
    end = "\r\n" if os.isatty(relay.stdin) else "\n"
    sys.stderr.write(f"runner: sandbox: {found.kind}/{found.tier.label}{lacking}{end}")
    sys.stderr.flush()
