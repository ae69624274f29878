"""What every command of ``runner secrets`` shares: which store, and how its password is found."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from daemon.cli.output import note
from daemon.config import environ, load
from daemon.errors import KeyringUnusableError, SecretNeededError, UsageError
from daemon.secrets.store.location import find_store_dir
from daemon.secrets.store.store_folder import StoreFolder
from daemon.secrets.store_password import (
    Ask,
    FoundPassword,
    PasswordOptions,
    keep_in_keyring,
    read_password_fd,
    read_password_file,
)
from daemon.secrets.values import SecretValue

if TYPE_CHECKING:
    from daemon.secrets.store.secret_store import SecretStore

MIN_PASSWORD_CHARS = 8
JOB_VARIABLE = "RUNNER_JOB_ID"

FILE = click.Path(path_type=Path, allow_dash=True, readable=False)
"""Not checked by click: a descriptor that the shell names is not readable by its path; see ``given_file``."""
COST = click.IntRange(15, 20)


class DiscreetCommand(click.Command):
    """A command that repeats nothing of a command line that it does not understand: a secret may stand there."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line.

        Raises:
            click.UsageError: It is wrong; says where, not what.
        """
        try:
            return super().parse_args(ctx, args)
        except (click.MissingParameter, click.BadOptionUsage):
            raise
        except click.BadParameter as error:
            name = error.param.opts[0] if error.param is not None else "an option"
            raise click.UsageError(f"{name}: not a value that it takes", ctx) from None
        except click.UsageError:
            raise click.UsageError(
                "an unknown option or an argument too many, not repeated here because it may be a "
                "secret, which is not accepted as an argument: `ps` and the shell's history show it",
                ctx,
            ) from None


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """The store that this invocation is about."""

    folder: StoreFolder
    env: Mapping[str, str]
    options: PasswordOptions
    ask: Ask | None
    """The prompt; None where nobody can be asked."""

    def unlock(self) -> tuple[SecretStore, FoundPassword]:
        """Return the unlocked store and its password, asking for it where there is somebody to ask.

        Raises:
            NoSecretStoreError, DamagedSecretStoreError, SecretNeededError, WrongPasswordError: As ``unlock_store``.
        """
        from daemon.secrets.unlock_store import unlock_store  # noqa: PLC0415 - loads cryptography

        store, found = unlock_store(self.folder, self.env, self.options, note, self.ask)
        if found.source == "terminal":
            self.keep(found.value)
        return store, found

    def keep(self, password: SecretValue) -> None:
        """Keep a password that is right in the keyring, if the person has chosen that."""
        if not self.options.keyring:
            return
        try:
            backend = keep_in_keyring(self.folder.root, password)
        except KeyringUnusableError as error:
            note(f"keyring: the password was not kept: {error}")
        else:
            note(f"keyring: the password is kept by {backend}")

    def new_password(self, label: str, *, weak: bool) -> SecretValue:
        """Ask for a new password twice.

        Raises:
            SecretNeededError: Nobody can be asked.
            UsageError: It is empty or too short, or the two differ.
        """
        if self.ask is None:
            raise SecretNeededError(
                "a new password is needed: give it by file or descriptor (see --help), "
                "or run this in a terminal, which asks for it"
            )
        typed = self.ask(f"{label}: ")
        if typed is None:
            raise SecretNeededError("no password was given; nothing was changed")
        if not typed:
            raise UsageError("an empty password is refused")
        password = checked_password(SecretValue(typed), weak=weak)
        if self.ask("The same again: ") != typed:
            raise UsageError("the passwords do not match; nothing was changed")
        return password


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options by which the password is found; the command gets them as ``access``."""

    @functools.wraps(command)
    def run(
        *args: Any,
        password_fd: int | None,
        password_file: Path | None,
        keyring: bool | None,
        no_input: bool,
        allow_foreign_owner: bool,
        **kwargs: Any,
    ) -> Any:
        env = environ()
        chosen = load(env, {"secrets.keyring": keyring})["secrets.keyring"].value is True
        options = PasswordOptions(fd=password_fd, file=password_file, keyring=chosen)
        folder = StoreFolder(
            find_store_dir(env), allow_foreign_owner=allow_foreign_owner, warn=note
        )
        return command(*args, access=StoreAccess(folder, env, options, _ask(no_input)), **kwargs)

    decorated: Callable[..., Any] = run
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


_OPTIONS = (
    click.option(
        "--password-fd",
        type=int,
        metavar="N",
        help="Read the password from this descriptor.",
    ),
    click.option(
        "--password-file", type=FILE, metavar="FILE", help="Read the password from this file."
    ),
    click.option(
        "--keyring/--no-keyring",
        default=None,
        help="Keep the password in the keyring of the desktop (default: secrets.keyring).",
    ),
    click.option("--no-input", is_flag=True, help="Never ask for anything."),
    click.option(
        "--allow-foreign-owner", is_flag=True, help="Use a store that belongs to somebody else."
    ),
)


def new_password_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that give another password without asking; the command gets it as ``given``."""

    @functools.wraps(command)
    def run(
        *args: Any, new_password_fd: int | None, new_password_file: Path | None, **kwargs: Any
    ) -> Any:
        given = read_given_password(new_password_fd, new_password_file, "--new-password")
        return command(*args, given=given, **kwargs)

    for word, kind, metavar in (("file", FILE, "FILE"), ("fd", int, "N")):
        text = "this file" if word == "file" else "this descriptor"
        option = click.option(
            f"--new-password-{word}",
            type=kind,
            metavar=metavar,
            help=f"Read the new password from {text}.",
        )
        run = option(run)
    return run


def read_given_password(fd: int | None, file: Path | None, option: str) -> SecretValue | None:
    """Return a second password that the command line names a place of; None if it names none.

    Raises:
        UsageError: Both were given, or it cannot be read.
    """
    if fd is not None and file is not None:
        raise UsageError(f"give {option}-fd or {option}-file, not both")
    if fd is not None:
        return read_password_fd(fd, f"{option}-fd")
    return None if file is None else read_password_file(file, f"{option}-file", note)


def checked_password(password: SecretValue, *, weak: bool) -> SecretValue:
    """Return a new password that is long enough.

    Raises:
        UsageError: It is not, and that was not allowed.
    """
    if len(password.reveal()) < MIN_PASSWORD_CHARS and not weak:
        raise UsageError(
            f"the password is shorter than {MIN_PASSWORD_CHARS} characters; "
            "if that is meant, say --allow-weak-password"
        )
    return password


def refuse_inside_job(env: Mapping[str, str]) -> None:
    """Keep values out of a job's log, whose masker does not know them.

    Raises:
        UsageError: This runs inside a job.
    """
    if env.get(JOB_VARIABLE):
        raise UsageError(
            "inside a job no secret is printed, because its log would show it; "
            "give it to the job by env: {NAME: ${secret:path:key}} in its file"
        )


def hide_inside_job(env: Mapping[str, str], value: bytes) -> None:
    """Have the masker of the job in which this runs hide a value; called right before it is printed.

    Raises:
        UsageError: This runs inside a job that does not hide it.
    """
    if not env.get(JOB_VARIABLE):
        return
    from runnerlib.mask import NotMaskedError, add_secret  # noqa: PLC0415 - only there

    try:
        add_secret(value)
    except NotMaskedError as error:
        raise UsageError(
            f"inside a job no secret is printed that its log would show: {error}; "
            "give it to the job by env: {NAME: ${secret:path:key}} in its file"
        ) from None


def _ask(no_input: bool) -> Ask | None:
    if no_input or not sys.stdin.isatty():
        return None

    def ask(label: str) -> str | None:
        from daemon.secrets.prompt import ask_secret  # noqa: PLC0415 - only for a person

        return ask_secret(label)

    return ask
