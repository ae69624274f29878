"""``runnerlib``: what a job's command can ask of the runner, and what it may want to know, from inside the sandbox."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Callable, Dict, List, Optional

from runnerlib import facts
from runnerlib.mask import NotMaskedError, add_secret

MAX_VALUE_BYTES = 1 << 20
CONDITIONS = ("all_success", "any_failed", "always")


def main(arguments: Optional[List[str]] = None) -> int:
    """Run one command; return its exit code: 0, 1 if it failed, 2 for a wrong usage, or that of a command it ran."""
    asked = _parser().parse_args(arguments)
    try:
        return int(asked.run(asked) or 0)
    except Exception as error:
        from runnerlib.source import SourceProblem

        if not isinstance(error, (SourceProblem, OSError, ValueError)):
            raise
        sys.stderr.write("runnerlib: {}\n".format(error))
        return 1


def program() -> None:
    """Run as the program of an archive, whose exit code nobody else sets."""
    sys.exit(main())


class _Commands:
    """The commands of one level."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._commands = parser.add_subparsers(dest="action", required=True)

    def add(
        self, name: str, what: str, example: str, run: Callable[[argparse.Namespace], object]
    ) -> argparse.ArgumentParser:
        """Add a command."""
        made = self._commands.add_parser(
            name, help=what, description=what, epilog="Example: runnerlib " + example
        )
        made.set_defaults(run=run)
        return made

    def group(self, name: str, what: str) -> _Commands:
        """Add a group of commands."""
        return _Commands(self._commands.add_parser(name, help=what))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runnerlib")
    commands = _Commands(parser)
    secret = commands.group("secret", "secrets of this job")
    add = secret.add(
        "add", "hide what comes on standard input in the log", "secret add < token", _add_secret
    )
    add.add_argument("--raw", action="store_true", help="keep a line end at the end of the value")
    _source_commands(commands)
    _workflow_commands(commands)
    _git_commands(commands.group("git", "facts of the repository"))
    config = commands.add("config", "show what the runner told this job", "config --json", _config)
    config.add_argument("--json", action="store_true", help="print JSON")
    commands.add("validate", "say what is wrong with it", "validate", _validate)
    archive = commands.add(
        "zipapp", "write this program as one file", "zipapp runnerlib.pyz", _archive
    )
    archive.add_argument("file")
    return parser


def _source_commands(commands: _Commands) -> None:
    run = commands.add(
        "run",
        "prepare the source as the environment says, then run a command",
        "run -- make test",
        _run,
    )
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    checkout = commands.add(
        "checkout", "clone a repository", "checkout https://host/repository --ref v1", _checkout
    )
    checkout.add_argument("url")
    checkout.add_argument("--ref", default="", help="branch, tag or commit")
    copy = commands.add("copy", "copy a folder", "copy /job/ci/templates", _copy)
    copy.add_argument("folder")
    for each in (checkout, copy):
        each.add_argument("--dir", default="", help="where to (default: where the source lies)")
    commands.add("cleanup", "remove what is in the workspace", "cleanup", _cleanup)


def _workflow_commands(commands: _Commands) -> None:
    trigger = commands.add(
        "trigger", "have a job follow this one", "trigger deploy --env TARGET=staging", _trigger
    )
    trigger.add_argument("job")
    trigger.add_argument("--env", action="append", default=[], metavar="NAME=TEXT")
    trigger.add_argument("--depends-on", action="append", default=[], metavar="JOB")
    trigger.add_argument(
        "--input", action="append", metavar="JOB", help="gets the outputs of JOB below /job/inputs"
    )
    trigger.add_argument("--condition", default=CONDITIONS[0], choices=CONDITIONS)
    trigger.add_argument("--job-file", metavar="FILE")
    trigger.add_argument("--job-command", metavar="TEXT")
    for name, run, what in (
        ("set-var", _set_var, "give a variable to the later jobs of this workflow"),
        ("set-output", _set_output, "give them a value under the name of this job"),
    ):
        made = commands.add(name, what, name + " TAG v1", run)
        made.add_argument("name")
        made.add_argument("value", help="JSON, or else a text")
    shown = commands.add("vars", "show the variables of this workflow", "vars TAG", _vars)
    shown.add_argument("name", nargs="?")


def _git_commands(git: _Commands) -> None:
    changed = git.add(
        "files-changed",
        "list the files that a branch changes",
        "git files-changed --base origin/main",
        _files_changed,
    )
    changed.add_argument("--base", default="", help="a commit (default: the one before)")
    info = git.add("info", "show commit, branch, author and origin", "git info --json", _git_info)
    for each in (changed, info):
        each.add_argument("--dir", default="", help="folder (default: where the source lies)")
        each.add_argument("--json", action="store_true", help="print JSON")


def _add_secret(asked: argparse.Namespace) -> int:
    value = sys.stdin.buffer.read(MAX_VALUE_BYTES)
    if not asked.raw:
        value = (
            value[:-2] if value.endswith(b"\r\n") else value[: len(value) - value.endswith(b"\n")]
        )
    try:
        add_secret(value)
    except NotMaskedError as error:
        sys.stderr.write(f"runnerlib: the value is not masked: {error}\n")
        return 1
    return 0


def _run(asked: argparse.Namespace) -> int:
    from runnerlib import source

    if _validate(asked):
        return 1
    found = facts.resolved()
    words = asked.words[1:] if asked.words[:1] == ["--"] else asked.words
    if not words and not found["job_command"]:
        raise ValueError("there is no command: give one after --")
    if found["source_type"] == "git":
        source.checkout(found["source_url"], found["source_ref"], found["code_dir"])
    elif found["source_type"] == "copy":
        source.copy(found["source_path"], found["code_dir"])
    argv = words or ["/bin/sh", "-c", found["job_command"]]
    code = subprocess.call(argv, cwd=found["job_dir"])
    return code if code >= 0 else 128 - code


def _checkout(asked: argparse.Namespace) -> None:
    from runnerlib import source

    print(source.checkout(asked.url, asked.ref, asked.dir or facts.code_dir()))


def _copy(asked: argparse.Namespace) -> None:
    from runnerlib import source

    source.copy(asked.folder, asked.dir or facts.code_dir())


def _cleanup(_: argparse.Namespace) -> int:
    from runnerlib import source

    left = source.cleanup()
    for path in left:
        sys.stderr.write("runnerlib: cannot remove {}\n".format(path))
    return 1 if left else 0


def _trigger(asked: argparse.Namespace) -> None:
    from runnerlib import workflow

    pairs = [text.partition("=") for text in asked.env]
    for name, equals, _ in pairs:
        if not equals:
            raise ValueError("--env must be NAME=TEXT, not {}".format(name))
    workflow.trigger_job(
        asked.job,
        env={name: value for name, _, value in pairs},
        depends_on=asked.depends_on,
        inputs=asked.input,
        condition=asked.condition,
        job_file=asked.job_file,
        job_command=asked.job_command,
    )
    workflow.flush_triggers()


def _set_var(asked: argparse.Namespace) -> None:
    from runnerlib import workflow

    workflow.set_workflow_var(asked.name, _value(asked.value))


def _set_output(asked: argparse.Namespace) -> None:
    from runnerlib import workflow

    workflow.set_workflow_output(asked.name, _value(asked.value))


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _vars(asked: argparse.Namespace) -> int:
    from runnerlib import workflow

    found = workflow.workflow_vars()
    if asked.name is None:
        print(json.dumps(found, indent=2, sort_keys=True))
        return 0
    if asked.name not in found:
        raise ValueError("the workflow has no variable {}".format(asked.name))
    value = found[asked.name]
    print(value if isinstance(value, str) else json.dumps(value))
    return 0


def _files_changed(asked: argparse.Namespace) -> None:
    from runnerlib import git_facts

    found = git_facts.files_changed(asked.dir or facts.code_dir(), asked.base)
    print(json.dumps(found) if asked.json else "\n".join(found))


def _git_info(asked: argparse.Namespace) -> None:
    from runnerlib import git_facts

    _show(git_facts.info(asked.dir or facts.code_dir()), as_json=asked.json)


def _config(asked: argparse.Namespace) -> None:
    _show(facts.resolved(), as_json=asked.json)


def _validate(_: argparse.Namespace) -> int:
    wrong = facts.problems()
    for name, problem in sorted(wrong.items()):
        sys.stderr.write("runnerlib: {} {}\n".format(name, problem))
    return 1 if wrong else 0


def _archive(asked: argparse.Namespace) -> None:
    from runnerlib import archive

    archive.build(os.path.abspath(asked.file))


def _show(found: Dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=2, sort_keys=True))
        return
    for name, value in found.items():
        print("{:14} {}".format(name + ":", value))


if __name__ == "__main__":
    sys.exit(main())
