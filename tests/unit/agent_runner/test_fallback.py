"""What an attempt may do without a container."""

from __future__ import annotations

import pytest

from agent_runner.fallback import MAX_ERROR_CHARS, Fallback
from agent_runner.job_spec import JobSpec
from agent_runner.outcome import EndReason, Outcome
from agent_runner.sandbox_spec import SandboxSpec
from sandbox.base import SandboxInfo, Tier
from sandbox.errors import EngineGoneError, SandboxBrokenError

GONE = EngineGoneError("the container engine\ndid not answer")
INFO = SandboxInfo(kind="filesystem", tier=Tier.BWRAP)


async def yes(_reason: str) -> bool:
    return True


def fallback(
    policy: str, kind: str = "container", default: str = "filesystem", *, asks: bool = False
):
    env = {"A": "1", "B": "2"}
    sandbox = SandboxSpec(kind=kind, fallback=policy, container_only=("B",))
    return Fallback(JobSpec(argv=("x",), env=env, sandbox=sandbox), default, yes if asks else None)


@pytest.mark.parametrize(
    ("policy", "asks", "possible"),
    [
        ("", True, False),
        ("never", True, False),
        ("ask", False, False),
        ("ask", True, True),
        ("allow", False, True),
    ],
)
async def test_who_may(policy: str, asks: bool, possible: bool):
    """Only what the job says, and whoever has to be asked can be."""
    one = fallback(policy, asks=asks)
    assert one.is_possible(GONE, exec_asked=False) is possible
    assert not one.is_possible(GONE, exec_asked=True)
    if possible:
        assert await one.is_agreed(GONE)


def test_once_and_only_from_a_container():
    """A filesystem sandbox that breaks is no reason, be it by choice or after a first fallback."""
    assert not fallback("allow", "filesystem").is_possible(GONE, exec_asked=False)
    assert not fallback("allow", "auto", "filesystem").is_possible(GONE, exec_asked=False)
    one = fallback("allow", "auto", "container")
    assert one.is_possible(GONE, exec_asked=False)
    one.take_over(GONE)
    assert not one.is_possible(GONE, exec_asked=False)


def test_what_is_withheld_and_told():
    """In a container nothing is withheld; the error is one masked line of bounded length, masked before it is cut."""
    one = fallback("allow")
    env = {"A": "1", "B": "2"}
    assert (one.withheld, one.handed_out(env)) == ((), env)
    assert one.notice(INFO, str) == b""
    assert one.variables(str) == {}
    one.take_over(EngineGoneError("x" * (MAX_ERROR_CHARS - 3) + "\nhunter2\0"))
    told = one.variables(lambda text: text.replace("hunter2", "***"))
    assert told["RUNNER_CONTAINER_ERROR"].endswith("x **")
    assert len(told["RUNNER_CONTAINER_ERROR"]) == MAX_ERROR_CHARS
    assert told["RUNNER_WITHHELD"] == "B"
    assert one.handed_out(env) == {"A": "1"}
    line = one.notice(INFO, str)
    assert line.count(b"\n") == 1
    assert line.endswith(b"withheld, because they are for containers only: B\n")
    by_choice = fallback("", "filesystem")
    assert (
        by_choice.notice(INFO, str)
        == b"runner: withheld, because they are for containers only: B\n"
    )
    assert by_choice.variables(str) == {"RUNNER_WITHHELD": "B"}


def test_the_end_keeps_both_reasons():
    """The first failure names the end, and a success says what it ran in."""
    one = fallback("allow")
    one.take_over(GONE)
    told = one.told(Outcome(end_reason=EndReason.EXITED, exit_code=0))
    assert "there was no container: the container engine" in told.message
    end = one.told(one.failure(SandboxBrokenError("no tier works")))
    assert end.end_reason is EndReason.ENGINE_GONE
    assert end.message.endswith("and there was no filesystem sandbox instead: no tier works")
