"""``runner parity``: one job in both kinds of sandbox, and in what the verdicts differ."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from daemon.cli.dry_run import masked_tree
from daemon.cli.job_input import Overlays, overlay_options, read_job_file
from daemon.cli.output import note, print_json, printable, show_warnings, state_of
from daemon.cli.run_local_place import CONTAINER, Place, PlaceFlags, choose_place, image_option
from daemon.cli.secret_search import SecretSearch, search_options
from daemon.cli.verdict import RUNNER_FAILED
from sandbox.masking.masker import Masker

if TYPE_CHECKING:
    from agent_runner.job_spec import JobSpec
    from agent_runner.outcome import Outcome
    from agent_runner.secret_refs import SecretRef
    from daemon.parity.comparison import Comparison, Difference
    from daemon.parity.observation import Observation
    from daemon.paths import StateDir
    from sandbox.container.settings import ContainerSettings

FILESYSTEM = "filesystem"


@click.command(epilog="Example: runner parity build.yaml --runner-image registry/build:12")
@click.argument("file", metavar="FILE")
@overlay_options
@image_option
@search_options
@click.option(
    "--allow-unsandboxed", is_flag=True, help="Run without walls if this host can build none."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def parity(  # noqa: PLR0913 - one per option
    ctx: click.Context,
    *,
    file: str,
    overlays: Overlays,
    runner_image: str,
    search: SecretSearch,
    allow_unsandboxed: bool,
    as_json: bool,
) -> int:
    """Run one job file in the filesystem sandbox, then in a container, and compare.

    Compared are how it ended, the exit code, the working directory, the names of the variables, the sources, and the
    outputs; without any, what the command has changed below code_dir. Exits with 0 if all that is the same, with 1
    if not, and with 125 if one of the sandboxes could not be had.
    """
    from agent_runner.hardening import harden  # noqa: PLC0415 - as late as it is needed
    from daemon.cli.run_local_secrets import find_secrets  # noqa: PLC0415
    from daemon.parity.comparison import compare  # noqa: PLC0415

    spec = overlays.load(read_job_file(file), to_run_here=True)
    flags = PlaceFlags(sandbox=CONTAINER, image=runner_image, fallback="never")
    place = choose_place(spec, flags, allow_unsandboxed=allow_unsandboxed)
    harden()
    state = state_of(ctx)
    state.prepare()
    secrets = find_secrets(place.spec, search)
    here, there = asyncio.run(_both(place, secrets, place.container_settings(search), state))
    result = compare(here, there, spec.sandbox.container_only)
    code = _exit_code(here, there, result)
    masker = _masker(secrets)
    for seen in (here, there):
        seen.changes = _names_hidden(seen.changes, masker)
        seen.outputs = _names_hidden(seen.outputs, masker)
    if as_json:
        document = _document(spec, here, there, result, decided=code != RUNNER_FAILED)
        print_json(masked_tree(document, masker))
    else:
        for line in _lines(here, there, result, code):
            print(printable(masker.mask_text(line)))
    return code


def _masker(secrets: dict[SecretRef, str]) -> Masker:
    """Return what hides secrets in names of files, which a job chooses as it likes."""
    masker = Masker()
    for ref, value in secrets.items():
        masker.add(str(ref), value)
    return masker


async def _both(
    place: Place, secrets: dict[SecretRef, str], settings: ContainerSettings, state: StateDir
) -> tuple[Observation, Observation]:
    """Run the job twice, one after the other, so that neither takes anything from the other."""
    from sandbox.process import apply_process_defaults  # noqa: PLC0415

    apply_process_defaults()
    show_warnings()
    seen = []
    for kind in (FILESYSTEM, CONTAINER):
        note(f"runner: {kind} ...")
        seen.append(await _observed(kind, place, secrets, settings, state))
        if seen[-1].end_reason == "CANCELLED":
            raise KeyboardInterrupt
    return seen[0], seen[1]


async def _observed(
    kind: str,
    place: Place,
    secrets: dict[SecretRef, str],
    settings: ContainerSettings,
    state: StateDir,
) -> Observation:
    from agent_runner.one_shot import OneShot, one_shot  # noqa: PLC0415
    from agent_runner.secret_source import GivenSecrets  # noqa: PLC0415
    from daemon.jobs.ids import new_job_id  # noqa: PLC0415
    from daemon.parity.observation import Observation, Watch  # noqa: PLC0415

    sandbox = replace(place.spec.sandbox, kind=kind, fallback="")
    seen = Observation(kind=kind)
    with tempfile.TemporaryDirectory(prefix="runner-parity-") as folder:
        shot = OneShot(
            job_id=new_job_id(),
            spec=replace(place.spec, sandbox=sandbox),
            secrets=GivenSecrets(secrets),
            workspaces=state.workspaces,
            source_dir=state.sources,
            owner_label=state.id,
            kind=kind,
            container=settings,
            outputs_dir=Path(folder),
            watcher=Watch(seen, place.spec.code_dir),
            tier=str(place.config["local.sandbox_tier"].value),
            allow_plain=place.config["local.allow_unsandboxed"].value is True,
        )
        _note_end(seen, place.spec, await one_shot(shot, lambda _: None, lambda _: None))
    return seen


def _note_end(seen: Observation, spec: JobSpec, outcome: Outcome) -> None:
    seen.end_reason, seen.exit_code = str(outcome.end_reason), outcome.exit_code
    seen.message, seen.commit = outcome.message, outcome.source.commit
    seen.log_sha256 = outcome.log.sha256
    if spec.outputs.paths:
        seen.outputs = {each.name: f"{each.sha256} {each.mode:o}" for each in outcome.outputs.files}


def _exit_code(here: Observation, there: Observation, result: Comparison) -> int:
    from daemon.parity.comparison import NO_VERDICT  # noqa: PLC0415

    if {here.end_reason, there.end_reason} & NO_VERDICT:
        return RUNNER_FAILED
    return 0 if result.same else 1


def _document(
    spec: JobSpec, here: Observation, there: Observation, result: Comparison, *, decided: bool
) -> dict[str, Any]:
    from daemon.parity.comparison import NOT_COMPARED  # noqa: PLC0415

    return {
        "name": spec.name,
        "same": result.same if decided else None,
        "differences": [_row(each) for each in result.differences],
        "by_design": [_row(each) for each in result.by_design],
        "not_compared": [*NOT_COMPARED, *here.unseen, *there.unseen],
        "same_log": here.log_sha256 == there.log_sha256,
        "filesystem": _seen(here),
        "container": _seen(there),
    }


def _row(difference: Difference) -> dict[str, Any]:
    return {**asdict(difference), "name": difference.name or None, "why": difference.why or None}


def _seen(seen: Observation) -> dict[str, Any]:
    names = ("tier", "end_reason", "exit_code", "message", "working_dir", "commit", "log_sha256")
    facts = {name: getattr(seen, name) for name in names}
    return {
        **facts,
        "variables": list(seen.variables),
        "changes": seen.changes,
        "outputs": seen.outputs,
    }


def _names_hidden(files: dict[str, str] | None, masker: Masker) -> dict[str, str] | None:
    return files and {masker.mask_text(name): what for name, what in files.items()}


def _lines(here: Observation, there: Observation, result: Comparison, code: int) -> Iterator[str]:
    from daemon.parity.comparison import NOT_COMPARED  # noqa: PLC0415

    for seen in (here, there):
        end = seen.end_reason + ("" if seen.exit_code is None else f" {seen.exit_code}")
        tier = f" ({seen.tier})" if seen.tier else ""
        why = f": {seen.message}" if seen.message else ""
        yield f"{seen.kind}{tier}: {end}{why}"
    for each in result.differences:
        yield f"differs: {each.text()}"
    for each in result.by_design:
        yield f"by design: {each.text()}"
    for text in (*NOT_COMPARED, *here.unseen, *there.unseen):
        yield f"not compared: {text}"
    words = {0: "the same verdict", 1: f"{len(result.differences)} differences"}
    yield words.get(code, "no verdict: one of the sandboxes could not be had")
