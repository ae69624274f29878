"""``runner run-local``: one job file, here and now, in the same sandbox and with the same verdict."""

from __future__ import annotations

import os
import select
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

import click

from daemon.cli.job_input import JobDocument, Overlays, overlay_options, read_job_file
from daemon.cli.output import note, printable, show_warnings, state_of
from daemon.cli.run_local_place import (
    CONTAINER,
    Place,
    PlaceFlags,
    ask_person,
    choose_place,
    place_options,
)
from daemon.cli.run_local_triggers import (
    TriggerFlags,
    after_run,
    run_with_triggered,
    trigger_options,
)
from daemon.cli.secret_search import SecretSearch, search_options
from daemon.cli.terminal_filter import shown_on
from daemon.cli.verdict import describe, exit_status
from daemon.config import environ
from daemon.errors import StateDirError, UsageError

if TYPE_CHECKING:
    from agent_runner.job_spec import JobSpec
    from agent_runner.one_shot import OneShot
    from agent_runner.outcome import Outcome
    from agent_runner.secret_refs import SecretRef
    from sandbox.base import Capabilities


class Keeping(NamedTuple):
    """What becomes of what the job leaves, and of what there is to tell of it."""

    outputs_dir: Path
    cache: bool
    """Its result is kept, and one that is kept may stand for it."""
    verbose: bool
    """All of it is told."""


@click.command(epilog="Example: runner run-local --file job.yaml")
@click.option(
    "--file", "-f", "file", required=True, metavar="FILE", help="Job file; - reads standard input."
)
@overlay_options
@click.option(
    "--env-passthrough",
    is_flag=True,
    help="Fill ${NAME} and ${NAME:-default} in env from the environment of this command.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print the job's masked output and nothing else.")
@click.option(
    "--verbose", "-v", is_flag=True, help="Say more at the end: source, walls, bounds, outputs."
)
@search_options
@place_options
@click.option(
    "--allow-unsandboxed", is_flag=True, help="Run without walls if this host can build none."
)
@click.option(
    "--outputs-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the job's outputs are put (default: outputs, beside the job file).",
)
@click.option("--no-cache", is_flag=True, help="Run the job even if an equal one has succeeded.")
@trigger_options
@click.option("--dry-run", is_flag=True, help="Show what would run, and run nothing.")
@click.option(
    "--check-secrets", is_flag=True, help="With --dry-run: ask for the password of the store."
)
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print JSON.")
@click.pass_context
def run_local(  # noqa: PLR0913 - one per option
    ctx: click.Context,
    *,
    file: str,
    overlays: Overlays,
    env_passthrough: bool,
    quiet: bool,
    verbose: bool,
    search: SecretSearch,
    place: PlaceFlags,
    allow_unsandboxed: bool,
    triggers: TriggerFlags,
    dry_run: bool,
    check_secrets: bool,
    as_json: bool,
    outputs_dir: Path | None,
    no_cache: bool,
) -> int:
    """Run one job file here, without the daemon; exit with the command's exit code."""
    if (check_secrets or as_json) and not dry_run:
        raise UsageError("--check-secrets and --json are for --dry-run")
    if verbose and (quiet or triggers.auto_continue or dry_run):
        raise UsageError("--verbose goes with none of --quiet, --auto-continue and --dry-run")
    document = read_job_file(file)
    spec = _job(ctx, document, overlays, keep=not dry_run)
    spec = _passed_through(spec) if env_passthrough else spec
    chosen = choose_place(spec, place, allow_unsandboxed=allow_unsandboxed)
    from agent_runner.hardening import harden  # noqa: PLC0415 - as late as it is needed

    harden()
    if dry_run:
        from daemon.cli import dry_run as dry  # noqa: PLC0415

        return dry.dry_run(chosen, search, check_secrets=check_secrets, as_json=as_json)
    keeping = Keeping(outputs_dir or document.base_dir / "outputs", not no_cache, verbose)
    if triggers.auto_continue:
        return run_with_triggered(
            ctx, chosen, search, triggers, quiet=quiet, outputs_dir=keeping.outputs_dir
        )
    return _run(ctx, chosen, search, keeping, triggers=triggers, quiet=quiet)


def _passed_through(spec: JobSpec) -> JobSpec:
    from daemon.cli.env_passthrough import pass_through  # noqa: PLC0415 - few ask for it

    return replace(spec, env=pass_through(spec.env, environ()))


def _job(ctx: click.Context, document: JobDocument, overlays: Overlays, *, keep: bool) -> JobSpec:
    """Return the job of a file, as it was read before if it was, else read now."""
    from daemon.cli.job_memory import JobMemory  # noqa: PLC0415

    try:
        root = state_of(ctx).root
    except StateDirError:
        # Told where the state is needed, which a file with problems never comes to.
        return overlays.load(document, to_run_here=True)
    memory = JobMemory(root / "job-files", overlays.question(document))
    if (known := memory.find()) is not None:
        return known
    spec = overlays.load(document, to_run_here=True)
    if keep and root.is_dir():
        memory.keep(spec)
    return spec


def _run(  # noqa: PLR0913 - as the command
    ctx: click.Context,
    place: Place,
    search: SecretSearch,
    keeping: Keeping,
    *,
    triggers: TriggerFlags,
    quiet: bool,
) -> int:
    import agent_runner.plain_asyncio  # noqa: F401, PLC0415 - before whatever imports asyncio
    from agent_runner.one_shot import run_one_shot  # noqa: PLC0415

    shot = _shot(ctx, place, search, keeping)
    show_warnings()
    shown = shown_on(sys.stdout)
    began = time.monotonic()
    outcome = run_one_shot(
        shot,
        lambda data: write_past_buffer(shown(data)),
        lambda found: None if quiet else _announce(shot.spec, found),
    )
    outcome = after_run(shot.spec, shot.job_id, outcome, triggers)
    if keeping.verbose:
        from daemon.cli.run_details import run_details  # noqa: PLC0415 - few ask for them

        for line in run_details(outcome, time.monotonic() - began):
            note(f"runner: {printable(line)}")
    _report(outcome, keeping.outputs_dir, quiet=quiet)
    return exit_status(outcome.end_reason, outcome.exit_code)


def _shot(ctx: click.Context, place: Place, search: SecretSearch, keeping: Keeping) -> OneShot:
    from agent_runner.one_shot import OneShot  # noqa: PLC0415
    from agent_runner.secret_refs import refs_of  # noqa: PLC0415
    from agent_runner.secret_source import GivenSecrets  # noqa: PLC0415
    from daemon.jobs.ids import new_job_id  # noqa: PLC0415

    state = state_of(ctx)
    state.prepare()
    secrets: dict[SecretRef, str] = {}
    if refs_of(needed := _needed_at_once(place)):
        from daemon.cli.run_local_secrets import find_secrets  # noqa: PLC0415

        secrets = find_secrets(needed, search)
    return OneShot(
        job_id=new_job_id(),
        spec=place.spec,
        secrets=GivenSecrets(secrets),
        workspaces=state.workspaces,
        source_dir=state.sources,
        owner_label=state.id,
        kind=place.kind,
        container=place.container_settings(search),
        consent=ask_person if search.ask else None,
        outputs_dir=keeping.outputs_dir,
        cache_dir=state.results if keeping.cache else None,
        max_output_bytes=int(str(place.config["outputs.max_bytes"].value)),
        tier=str(place.config["local.sandbox_tier"].value),
        allow_plain=place.config["local.allow_unsandboxed"].value is True,
    )


def _needed_at_once(place: Place) -> JobSpec:
    """Return the job without the variables that it does not get outside a container, so that nobody is asked for them."""
    spec = place.spec
    if place.kind == CONTAINER:
        return spec
    kept = {n: value for n, value in spec.env.items() if n not in spec.sandbox.container_only}
    return replace(spec, env=kept)


def write_past_buffer(data: bytes, stream: TextIO | None = None) -> None:
    """Write to standard output, or another stream, past Python's buffer: a thread that waits in here must hold no lock when the process ends."""
    fd, rest = (stream or sys.stdout).fileno(), memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # whoever gave us the descriptor made it so
            select.select((), (fd,), ())


def _announce(spec: JobSpec, found: Capabilities) -> None:
    walls = ", ".join(str(wall) for wall in found.walls_not_held)
    from daemon.cli.remote_commands import remote_commands  # noqa: PLC0415 - not for a quiet run

    note(f"runner: job {printable(spec.name)}, sandbox: {found.kind}/{found.tier.label}")
    for command in remote_commands(spec.argv):
        note(f"runner: the job file says `{printable(command)}`, which acts beyond this host")
    if walls:
        note(f"runner: warning: walls not held here: {walls} ({found.reason})")


def _report(outcome: Outcome, outputs_dir: Path, *, quiet: bool) -> None:
    if outcome.outputs.files and not quiet:
        count = len(outcome.outputs.files)
        note(f"runner: {count} output{'' if count == 1 else 's'} in {printable(str(outputs_dir))}")
    message = describe(outcome.end_reason, outcome.exit_code, outcome.message)
    if outcome.log.truncated:
        note(f"runner: the log is shorter than the output: {outcome.log.truncated}")
    # A quiet run still says why the runner itself failed; the job's own failure speaks for itself.
    if not quiet or outcome.exit_code is None:
        note(f"runner: {printable(message)}")
