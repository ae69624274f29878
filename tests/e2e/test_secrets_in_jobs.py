"""`runner secrets get` inside a job: nothing is printed that the job's log would show."""

from __future__ import annotations

import asyncio

import pytest

from agent_runner.late_secrets import LateSecrets
from sandbox.job_socket import FOLDER, SOCKET, JobSocket, install
from sandbox.masking.masker import Masker
from tests.e2e.secrets_home import SecretsHome

VALUE = "canary-Zq7Zq7Zq7"


@pytest.mark.case("get-inside-a-job")
async def test_a_value_is_hidden_in_the_log_of_a_job_before_it_is_printed(
    home: SecretsHome,
) -> None:
    """By the socket of the job; a value that its masker does not take is not printed."""
    home.make(KEY=VALUE, PIN="abc")
    masker = Masker()
    late = LateSecrets(masker)
    (home.root / "job").mkdir()
    install(home.root / "job")
    listening = JobSocket(late.answer)
    await listening.open(home.root / "job", None)
    env = {
        "RUNNER_JOB_ID": "j1",
        "RUNNER_MASK_SOCKET": str(home.root / "job" / FOLDER / SOCKET),
        "RUNNER_MASK_TOKEN": late._token,
    }
    assert VALUE in masker.mask_text(VALUE)
    done = await asyncio.to_thread(home.secrets, "get", "a", "KEY", env=env)
    assert done.stdout == VALUE.encode()
    assert VALUE not in masker.mask_text(VALUE)
    line = await asyncio.to_thread(home.error, "get", "a", "PIN", code=2, env=env)
    assert "inside a job" in line
    listening.close()
    await asyncio.to_thread(home.error, "get", "a", "KEY", code=2, env=env)


@pytest.mark.case("get-inside-a-job")
def test_no_value_is_printed_into_the_log_of_a_job(home: SecretsHome) -> None:
    """Where its masker cannot be told."""
    home.make(KEY=VALUE)
    assert "inside a job" in home.error("get", "a", "KEY", code=2, env={"RUNNER_JOB_ID": "j1"})
    assert "inside a job" in home.error(
        "export", "--plaintext", code=2, env={"RUNNER_JOB_ID": "j1"}
    )
