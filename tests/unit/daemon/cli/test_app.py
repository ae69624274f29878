"""The tree of commands: what somebody who mistypes is told."""

from __future__ import annotations

import click
import pytest

from daemon.cli.app import runner


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lcoal", "start"], "No such command 'lcoal'. Did you mean 'local'?"),
        (["jobs", "lsit"], "No such command 'lsit'. Did you mean 'list'?"),
        (["jobs", "submti"], "No such command 'submti'. Did you mean 'submit'?"),
        (["zzz"], "No such command 'zzz'."),
    ],
)
def test_a_command_that_is_none(words, said):
    """What may have been meant is looked for among all commands, those that are not imported yet too."""
    with pytest.raises(click.UsageError) as raised:
        runner.main(words, prog_name="runner", standalone_mode=False)
    assert raised.value.format_message() == said


def test_an_option_that_is_none():
    """It is not taken for a command."""
    with pytest.raises(click.NoSuchOption):
        runner.main(["--zzz"], prog_name="runner", standalone_mode=False)
