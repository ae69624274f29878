"""The ``runner`` command: the tree of commands and how errors become one line and an exit code.

Start-up time is a feature: this module imports click and nothing else of weight; each group's module is imported
when its command is used, so ``runner --help`` loads no grpc, pydantic, keyring or prompt-toolkit.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from daemon import VERSION
from daemon.errors import DaemonError, RemoteError

COMMANDS: dict[str, tuple[str, str]] = {
    "local": ("daemon.cli.local:local", "Start, stop and watch the local instance."),
    "jobs": ("daemon.cli.jobs:jobs", "Submit jobs, watch them, read their logs."),
    "run-local": ("daemon.cli.run_local:run_local", "Run one job file here, without the daemon."),
    "pipeline": ("daemon.cli.pipeline:pipeline", "Run or draw several jobs of one file."),
    "watch": ("daemon.cli.watch:watch", "Run each job file that comes into a folder."),
    "validate": ("daemon.cli.validate:validate", "Say what is wrong with job files."),
    "schema": ("daemon.cli.schema:schema", "Print the JSON Schema of a job file, for editors."),
    "secrets": ("daemon.cli.secrets:secrets", "Keep secrets in an encrypted store."),
    "server": ("daemon.cli.server:server", "Run the job server in the foreground, for staging."),
    "agent-runner": (
        "daemon.cli.agent_runner:agent_runner",
        "Run an agent-runner in the foreground, for staging.",
    ),
    "doctor": ("daemon.cli.doctor:doctor", "Look at what this machine has and lacks."),
    "sandbox": ("daemon.cli.sandbox:sandbox", "Try the walls that jobs run behind, here."),
    "parity": ("daemon.cli.parity:parity", "Run one job in both sandboxes, and compare."),
    "gc": ("daemon.cli.gc:gc", "Find and remove what killed runs have left."),
    "tokens": ("daemon.cli.tokens:tokens", "Let others in at the job server, and out again."),
    "config": ("daemon.cli.config:config", "Show the configuration and where each value is from."),
    "completion": ("daemon.cli.completion:completion", "Print the completion script of a shell."),
}


class ReaderGoneError(Exception):
    """Whoever reads our output has what it wants. Click turns a BrokenPipeError into exit code 1 itself."""


class LazyGroup(click.Group):
    """A group with commands that are imported when they are used; their one-line help stands in a table."""

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            ReaderGoneError: The other end of standard output is closed.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderGoneError from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; click itself looks for what may have been meant among those that are imported only.

        Raises:
            click.UsageError: There is none of this name.
        """
        name, known = args[0], self.list_commands(ctx)
        if name in known or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches  # noqa: PLC0415 - for who mistyped only

        meant = "".join(f" Did you mean {each!r}?" for each in get_close_matches(name, known, 1))
        raise click.UsageError(f"No such command {name!r}.{meant}", ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: D102 - as in click
        return [*self.commands, *self._lazy]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: D102
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, name = self._lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: D102
        width = formatter.width - 6 - max(map(len, self.list_commands(ctx)))
        rows = [(name, one.get_short_help_str(width)) for name, one in self.commands.items()]
        rows += [(name, text) for name, (_, text) in self._lazy.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: runner local start && runner jobs submit --file build.yaml --follow",
)
@click.version_option(VERSION, prog_name="runner", message="%(prog)s %(version)s")
@click.option(
    "--state-dir",
    metavar="DIR",
    help="Where the state lies (default: $RUNNER_STATE_DIR, else $XDG_STATE_HOME/runner).",
)
@click.option(
    "--server",
    metavar="HOST:PORT",
    help="Ask this job server, with --token-file, not that of the state.",
)
@click.option("--token-file", metavar="FILE", help="Holds the token that the server has issued.")
@click.option("--tls-ca", metavar="FILE", help="Who must have signed the server's certificate.")
@click.option(
    "--tls-certificate", metavar="FILE", help="What is shown to a server that asks for one."
)
@click.option("--tls-key", metavar="FILE", help="The key of that.")
@click.option(
    "--insecure", is_flag=True, default=None, help="Let the token cross a network in clear."
)
@click.pass_context
def runner(ctx: click.Context, /, state_dir: str | None, **_: Any) -> None:
    """Run coding-agent and CI jobs on this machine exactly as staging will."""
    ctx.obj = state_dir


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the console script; never lets a traceback reach the user for a known error."""
    _open_standard_streams()
    try:
        code = runner.main(args=args, prog_name="runner", standalone_mode=False)
    except (BrokenPipeError, ReaderGoneError):
        code = _leave_broken_pipe()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - explained, and kept for who asks
        code = _explain(error)
    code = _flushed(code if isinstance(code, int) else 0)
    if args is None and _is_all_done():
        _leave(code)
    sys.exit(code)


def _is_all_done() -> bool:
    """Tell whether no thread is left that the end of the process would wait for."""
    main_thread = threading.main_thread()
    return all(each is main_thread or each.daemon for each in threading.enumerate())


def _leave(code: int) -> None:
    """End the process without taking the interpreter apart, which takes as long as starting it and changes nothing any more."""
    atexit._run_exitfuncs()  # noqa: SLF001 - what modules have asked for at the end
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _explain(error: BaseException) -> int:  # noqa: PLR0911 - one per kind
    """Print one line for an error and return the exit code; a defect can be asked for its trace."""
    match error:
        case KeyboardInterrupt() | click.exceptions.Abort():
            return _fail("interrupted", 130)
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return 2
        case click.ClickException():
            return _fail(_one_line(error), error.exit_code)
        case RemoteError():
            return _fail(str(error), error.remote_exit_code)
        case DaemonError():
            return _fail(str(error), error.exit_code)
        case UnicodeError():
            return _fail("a word of the command is not valid UTF-8", 2)
        case OSError():
            return _fail(f"{error.filename or 'output'}: {error.strerror or error}", 1)
        case _:
            pass
    from daemon.config import environ  # noqa: PLC0415 - a third of the start, for a defect only

    if environ().get("RUNNER_DEBUG"):
        raise error
    name = type(error).__name__
    return _fail(f"internal error ({name}); run again with RUNNER_DEBUG=1 and report the trace", 1)


def _open_standard_streams() -> None:
    """Open what the caller has closed: else the next file or lock would become a standard stream of our children."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # Takes the lowest number that is free: this one. What is written to a closed output is lost, hence an error.
            os.open(os.devnull, os.O_RDONLY if fd == 1 else os.O_RDWR)
    for name, fd, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115 - for the whole run


def _flushed(code: int) -> int:
    """Return the code, or that of an output that could not be written: a lost answer is a failure."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _leave_broken_pipe()
    except OSError as error:
        _discard(sys.stdout.fileno())
        return _fail(f"cannot write the output: {error.strerror}", 1)
    return code


def _leave_broken_pipe() -> int:
    """The reader has what it wants (``runner jobs logs | head``). 141 is what a shell shows for SIGPIPE."""
    _discard(sys.stdout.fileno())
    return 141


def _discard(fd: int) -> None:
    """Let what is still buffered go nowhere, so that the interpreter does not complain at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, fd)
    os.close(null)


def _one_line(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    return f"{error.format_message()}{hint}"


def _fail(message: str, code: int) -> int:
    print(f"runner: {message}", file=sys.stderr)
    return code
