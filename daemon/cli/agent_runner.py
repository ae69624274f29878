"""``runner agent-runner``: an agent-runner in the foreground, for staging."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from daemon.cli.output import note, state_of
from daemon.cli.secret_search import SearchFlags, SecretSearch
from daemon.config import environ
from daemon.errors import UsageError

if TYPE_CHECKING:
    from daemon.staging_config import AgentStaging

PASSWORD_CREDENTIAL = "runner-secrets-password"  # noqa: S105 - the name of a file
LOCKED = (
    "secret store: locked; what refers to it will not run (--password-file, RUNNER_SECRETS_PASSWORD or the "
    f"credential {PASSWORD_CREDENTIAL} gives its password)"
)
OF_LOCAL = frozenset(
    {"slots", "sandbox_tier", "allow_unsandboxed", "container_image", "drain_timeout"}
)
"""The flags whose settings local mode has, too."""

FILE = click.Path(path_type=Path, allow_dash=True, readable=False)
OPTIONS = (
    click.option("--server", metavar="HOST:PORT", help="Address of the job server, or unix:/PATH."),
    click.option(
        "--name", metavar="NAME", help="Its name, which no other has (default: the host's)."
    ),
    click.option("--slots", metavar="N", help="How many attempts run at once."),
    click.option(
        "--labels", metavar="NAME=VALUE,…", help="What it offers to jobs that ask for it."
    ),
    click.option(
        "--project",
        "projects",
        multiple=True,
        callback=lambda _ctx, _option, given: given or None,
        metavar="P",
        help="Take jobs of this project only, or of these; else of all that its token is for.",
    ),
    click.option(
        "--mode",
        type=click.Choice(["local", "cloud"]),
        help="Run jobs behind the kernel's walls, or in containers (default).",
    ),
    click.option(
        "--token-file", metavar="FILE", help="Holds the token that the server has issued."
    ),
    click.option("--tls-ca", metavar="FILE", help="Who must have signed the server's certificate."),
    click.option(
        "--tls-certificate", metavar="FILE", help="What is shown to a server that asks for one."
    ),
    click.option("--tls-key", metavar="FILE", help="The key of that."),
    click.option(
        "--insecure", is_flag=True, default=None, help="Let the token cross a network in clear."
    ),
    click.option("--container-image", metavar="NAME", help="For jobs that name no image."),
    click.option(
        "--sandbox-tier",
        type=click.Choice(["auto", "bwrap", "landlock", "plain"]),
        help="The strongest sandbox tier to use.",
    ),
    click.option(
        "--allow-unsandboxed",
        is_flag=True,
        default=None,
        help="Let jobs run without walls where nothing better works.",
    ),
    click.option(
        "--drain-timeout",
        metavar="SECONDS",
        help="How long running jobs may take to end (default 60).",
    ),
    click.option(
        "--password-file",
        type=FILE,
        metavar="FILE",
        help="Holds the password of the secret store, whose values jobs may ask for.",
    ),
)


def _options(command: Any) -> Any:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command(
    "agent-runner",
    epilog="Example: runner agent-runner --server 127.0.0.1:50051 --token-file ./token --slots 4",
)
@_options
@click.pass_context
def agent_runner(ctx: click.Context, /, password_file: Path | None, **flags: Any) -> None:
    """Run jobs for a job server, in the foreground, as systemd and containers do.

    Logs JSON lines on standard error. It waits for a server that is away. TERM or Ctrl-C lets running jobs end,
    a second one gives them back to the queue, a third one leaves at once.
    """
    from agent_runner.hardening import harden  # noqa: PLC0415 - the help does without these
    from daemon.foreground.launch import run_agent_runner  # noqa: PLC0415
    from daemon.foreground.token_file import read_token  # noqa: PLC0415
    from daemon.staging_config import agent_staging  # noqa: PLC0415

    env = environ()
    config = agent_staging(env, {_key(name): value for name, value in flags.items()})
    _check(config)
    harden()
    token = read_token(config.token_file, env, note)
    run_agent_runner(state_of(ctx), config, env, token, _store(env, password_file))


def _key(flag: str) -> str:
    return f"local.{flag}" if flag in OF_LOCAL else f"agent_runner.{flag}"


def _check(config: AgentStaging) -> None:
    if not config.server:
        raise UsageError("no job server: give --server HOST:PORT or RUNNER_SERVER")


def _store(env: Mapping[str, str], password_file: Path | None) -> dict[str, str]:
    """Return the secret store, unlocked if its password is at hand; nobody is asked."""
    from daemon.foreground.token_file import credential  # noqa: PLC0415 - as above

    search = SecretSearch(
        SearchFlags(
            unlock=False,
            password_fd=None,
            password_file=password_file or credential(env, PASSWORD_CREDENTIAL),
            keyring=False,
            no_input=True,
        )
    )
    if search.open_store() is None and search.has_store():
        note(LOCKED)
    return search.document()
