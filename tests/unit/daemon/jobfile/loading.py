"""Reading a job file in a test: the job it means, or the lines of what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_runner.job_spec import JobSpec
from daemon.errors import InvalidJobFileError
from daemon.jobfile.loader import load_job_file

BASE = Path("/base/dir")


def load(text: str | bytes, name: str = "job.yaml") -> JobSpec:
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return load_job_file(content, name, BASE)


def errors(text: str | bytes, name: str = "job.yaml") -> list[str]:
    with pytest.raises(InvalidJobFileError) as caught:
        load(text, name)
    return str(caught.value).splitlines()


def error(text: str | bytes, name: str = "job.yaml") -> str:
    (line,) = errors(text, name)
    return line
