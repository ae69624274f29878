"""``runner local start`` and ``restart``: where the secrets come from, and what runs with them."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

import click

from daemon.cli.local import DrainProgress, goes_on, pids_of, print_progress, seconds_of
from daemon.cli.output import note, state_of
from daemon.cli.secret_search import LOCKED, SecretSearch, search_options
from daemon.config import LocalConfig, environ, local_config
from daemon.errors import NotRunningError
from daemon.paths import StateDir
from daemon.secrets.gather import gather
from daemon.secrets.values import GatheredSecret, SecretOrigin, WantedSecret

SECRET_LABELS = {"ANTHROPIC_API_KEY": "Anthropic API key"}
TIER = click.Choice(["auto", "bwrap", "landlock", "plain"])
MODE = click.Choice(["local", "cloud"])
PLACES = {"keyring": "the keyring", "store": "the secret store"}


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
                "--mode", type=MODE, help="Run jobs behind the kernel's walls, or in containers."
            ),
            click.option("--container-image", metavar="NAME", help="For jobs that name no image."),
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


@click.command(epilog="Example: runner local start --secret NPM_TOKEN --save store")
@_settings
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME",
    help="Also gather this secret; it is required.",
)
@click.option(
    "--save",
    type=click.Choice(list(PLACES)),
    help="Keep what was typed or in the environment for the next start.",
)
@search_options
@click.option("--foreground", is_flag=True, help="Stay in the foreground (systemd, containers).")
@click.pass_context
def start(
    ctx: click.Context,
    /,
    *,
    secrets: tuple[str, ...],
    save: str | None,
    search: SecretSearch,
    foreground: bool,
    **flags: Any,
) -> None:
    """Gather the secrets, then start daemon, job server and agent-runner."""
    from agent_runner.hardening import harden  # noqa: PLC0415 - the help does without these
    from daemon.local.start import run_foreground, start_local  # noqa: PLC0415

    state = state_of(ctx)
    config = local_config(environ(), _keys(flags), secrets)
    running = _running(state)
    if running is not None:
        note(f"already running: {pids_of(running)}")
        return
    _obey_signals()
    harden()
    values = _gather(config, search, save)
    store = search.document()
    if foreground:
        run_foreground(state, config, values, store=store)
    result = start_local(state, config, values, print_progress, store=store)
    if result.already:
        note(f"already running: {pids_of(result.status)}")


@click.command(epilog="Example: runner local restart --slots 4")
@_settings
@search_options
@click.option(
    "--drain-timeout", metavar="SECONDS", help="How long running jobs may take to end (default 60)."
)
@click.option("--now", is_flag=True, help="Stop running jobs at once; they run again afterwards.")
@click.pass_context
def restart(
    ctx: click.Context,
    /,
    *,
    search: SecretSearch,
    drain_timeout: str | None,
    now: bool,
    **flags: Any,
) -> None:
    """Stop and start again with the configuration and secrets that the daemon has; flags change it.

    The secret store is unlocked again if its password can be found; where that was changed, it is asked for.
    """
    from agent_runner.hardening import harden  # noqa: PLC0415 - the help does without these
    from daemon.local.restart import restart_local  # noqa: PLC0415
    from daemon.local.status import query_status  # noqa: PLC0415

    config = _given(flags)
    timeout_s = None if drain_timeout is None else seconds_of(drain_timeout)
    state = state_of(ctx)
    held = query_status(state).get("secret_store", {}).get("header", "")
    harden()
    opened = search.open_store(may_ask=search.is_stale(held))
    store = None if opened is None else search.document()
    report = print_progress if now else DrainProgress()
    with goes_on("restart"):
        restart_local(state, config, {}, report, store=store, drain_timeout_s=timeout_s, now=now)


def _obey_signals() -> None:
    """Give whoever ends a start by a signal what Ctrl-C does: nothing is left running."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)


def _running(state: StateDir) -> dict[str, Any] | None:
    """Return the status of a daemon that is up, so that nobody is asked for secrets in vain."""
    from daemon.local.status import query_status  # noqa: PLC0415

    try:
        found = query_status(state)
    except NotRunningError:
        return None
    return found if found.pop("phase", "") == "running" else None


def _gather(config: LocalConfig, search: SecretSearch, save: str | None) -> dict[str, str]:
    """Return the values that the daemon is to hold by name, after saying where each secret comes from.

    Those of the store are not among them: the daemon reads them there when a job asks, so that a later one counts.
    """
    saves_in_store = save == "store"
    store = search.open_store(may_ask=saves_in_store, needed=saves_in_store)
    if store is None and search.has_store():
        note(LOCKED)
    kept = f"saved in {PLACES[save]}" if save else "kept in memory only"
    wanted = [
        WantedSecret(
            name=wish.name,
            required=wish.required,
            description=SECRET_LABELS.get(wish.name, ""),
            kept=kept,
        )
        for wish in config.secrets
    ]
    found = gather(wanted, search.sources(), note)
    saved = _save(found, search, save)
    for name, secret in found.items():
        _report(name, secret, PLACES[save] if save and name in saved else "")
    in_store = saved if saves_in_store else []
    return {
        name: secret.value.reveal()
        for name, secret in found.items()
        if secret.origin is not SecretOrigin.STORE and name not in in_store
    }


def _save(found: Mapping[str, GatheredSecret], search: SecretSearch, save: str | None) -> list[str]:
    """Keep values for the next start, if that was asked for; return the names of those that are kept."""
    if save is None:
        return []
    from daemon.secrets import saving  # noqa: PLC0415 - by choice only

    if save == "store" and search.store is not None:
        return saving.save_in_store(found, search.store)
    if save == "keyring":
        saved, problem = saving.save_in_keyring(found)
        if problem:
            note(f"warning: not saved in the keyring: {problem}; --save store needs none")
        return saved
    return []


def _report(name: str, secret: GatheredSecret, saved_in: str) -> None:
    """Say where a secret comes from and what becomes of it, and if it is one that no log can hide."""
    from sandbox.masking.masker import Masker  # noqa: PLC0415 - only where there is a secret

    if saved_in:
        fate = f"; saved in {saved_in}"
    else:
        fate = "; kept in memory only" if secret.origin is SecretOrigin.TYPED else ""
    note(f"{name}: from {secret.origin}{fate}")
    if not Masker().add(name, secret.value.reveal()):
        note(f"warning: {name} is too short or too common a text to be masked in logs")


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given as flags; the others stay as the daemon has them."""
    config = local_config(environ(), _keys(flags))
    return {name: getattr(config, name) for name, value in flags.items() if value is not None}


def _keys(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {f"local.{name}": value for name, value in flags.items()}
