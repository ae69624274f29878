"""The ``runner`` command: the tree of commands and how errors become one line and an exit code.

Start-up time is a feature: this module imports click and nothing else of weight; each group's module is imported
when its command is used, so ``runner --help`` loads no grpc, pydantic, keyring or prompt-toolkit.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from daemon import VERSION
from daemon.config import environ
from daemon.errors import DaemonError, RemoteError

COMMANDS: dict[str, tuple[str, str]] = {
    "local": ("daemon.cli.local:local", "Start, stop and watch the local instance."),
    "jobs": ("daemon.cli.jobs:jobs", "Submit jobs, watch them, read their logs."),
    "run-local": ("daemon.cli.run_local:run_local", "Run one job file here, without the daemon."),
    "config": ("daemon.cli.config:config", "Show the configuration and where each value is from."),
    "completion": ("daemon.cli.completion:completion", "Print the completion script of a shell."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used; their one-line help stands in the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: D102 - as in click
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: D102
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: D102
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: runner local start && runner jobs submit --file build.yaml --follow",
)
@click.version_option(VERSION, prog_name="runner", message="%(prog)s %(version)s")
@click.option(
    "--state-dir",
    metavar="DIR",
    help="Where the state lies (default: $RUNNER_STATE_DIR, else $XDG_STATE_HOME/runner).",
)
@click.pass_context
def runner(ctx: click.Context, state_dir: str | None) -> None:
    """Run coding-agent and CI jobs on this machine exactly as staging will."""
    ctx.obj = state_dir


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the console script; never lets a traceback reach the user for a known error."""
    try:
        code = runner.main(args=args, prog_name="runner", standalone_mode=False)
    except click.exceptions.Abort:
        code = _fail("interrupted", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = 2
    except click.ClickException as error:
        code = _fail(_one_line(error), error.exit_code)
    except RemoteError as error:
        code = _fail(str(error), error.remote_exit_code)
    except DaemonError as error:
        code = _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # `runner jobs logs | head`: the reader has what it wants. 141 is what a shell shows for SIGPIPE.
        sys.stderr.close()
        code = 141
    except Exception as error:
        # A defect. People get one line; whoever looks into it asks for the trace.
        if environ().get("RUNNER_DEBUG"):
            raise
        code = _fail(
            f"internal error ({type(error).__name__}); run again with RUNNER_DEBUG=1 and report the trace",
            1,
        )
    sys.exit(code if isinstance(code, int) else 0)


def _one_line(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    return f"{error.format_message()}{hint}"


def _fail(message: str, code: int) -> int:
    print(f"runner: {message}", file=sys.stderr)
    return code
