"""``runner secrets``: the encrypted store of secrets."""

from __future__ import annotations

import click

from agent_runner.hardening import harden
from daemon.cli.app import LazyGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("daemon.cli.secrets_init:init", "Make the store."),
    "set": ("daemon.cli.secrets_set:set_", "Store one value, which is asked for or read."),
    "get": ("daemon.cli.secrets_get:get", "Print one value."),
    "delete": ("daemon.cli.secrets_delete:delete", "Remove one value."),
    "list": ("daemon.cli.secrets_list:list_", "Print the keys of one path."),
    "list-paths": ("daemon.cli.secrets_list:list_paths", "Print all paths."),
    "passwd": ("daemon.cli.secrets_passwd:passwd", "Change the password."),
    "export": ("daemon.cli.secrets_export:export", "Write all values to a file, encrypted."),
    "doctor": ("daemon.cli.doctor:secrets_doctor", "Look at store, keyring and masker."),
    "import": ("daemon.cli.secrets_import:import_", "Store all values of a file, or none."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    epilog="Example: runner secrets init && runner secrets set npm/tokens NPM_TOKEN",
)
def secrets() -> None:
    """Keep secrets in an encrypted store, for ${secret:path:key} in job files."""
    harden()
