"""``runner schema``: the JSON Schema of what people write by hand, for their editors."""

from __future__ import annotations

import click

from daemon.cli.output import print_json


@click.group()
def schema() -> None:
    """Print the JSON Schema of a file that people write."""


@schema.command(epilog="Example: runner schema job > job.schema.json")
def job() -> None:
    """Print the JSON Schema of a job file.

    An editor with a YAML language server checks a file that begins with

        # yaml-language-server: $schema=PATH-OR-URL
    """
    from daemon.jobfile.schema import job_schema  # noqa: PLC0415 - pydantic is heavy

    print_json(job_schema())
