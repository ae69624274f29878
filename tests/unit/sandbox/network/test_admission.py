"""A request goes only where the list permits, whatever a name server says."""

from __future__ import annotations

import ipaddress

import pytest

from sandbox.network.admission import RefusedError, UnreachableError, admitted
from sandbox.network.request import Target
from sandbox.network.rules import Address, HostRules

PUBLIC = "93.184.215.14"


class ScriptedResolver:
    """Knows what it is told, and counts the questions."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def addresses(self, name: str) -> list[Address]:
        """Return the next answer."""
        self.asked.append(name)
        if not self._answers:
            raise TimeoutError("nobody answers")
        return [ipaddress.ip_address(text) for text in self._answers.pop(0)]


async def test_a_name_is_looked_up_once() -> None:
    """What was checked is what is connected to."""
    resolver = ScriptedResolver([PUBLIC, "2606:4700::1111"], ["127.0.0.1"])
    found = await admitted(Target("a.b", 443), HostRules(["a.b"]), resolver)
    assert [str(address) for address in found] == [PUBLIC, "2606:4700::1111"]
    assert resolver.asked == ["a.b"]


@pytest.mark.parametrize(
    "answer", [["127.0.0.1"], [PUBLIC, "127.0.0.1"], ["10.0.0.1"], ["::1"], ["169.254.169.254"]]
)
async def test_a_name_that_leads_inside_is_refused(answer: list[str]) -> None:
    """As a whole, even if one of its addresses is public."""
    with pytest.raises(RefusedError, match="not public"):
        await admitted(Target("a.b", 443), HostRules(["a.b"]), ScriptedResolver(answer))


async def test_a_listed_range_is_permitted() -> None:
    """By a name that is listed too."""
    rules = HostRules(["a.b", "10.0.0.0/8"])
    found = await admitted(Target("a.b", 443), rules, ScriptedResolver(["10.0.0.1"]))
    assert [str(address) for address in found] == ["10.0.0.1"]
    with pytest.raises(RefusedError):
        await admitted(Target("c.d", 443), rules, ScriptedResolver(["10.0.0.1"]))


@pytest.mark.parametrize(
    "target",
    [
        Target("evil.test", 443),
        Target("a.b", 22),
        Target(ipaddress.ip_address("127.0.0.1"), 443),
        Target(ipaddress.ip_address(PUBLIC), 443),
        Target(ipaddress.ip_address("::ffff:10.0.0.1"), 80),
    ],
)
async def test_nobody_is_asked_about_what_is_not_listed(target: Target) -> None:
    """A question to a name server tells as much as a connection."""
    resolver = ScriptedResolver([PUBLIC])
    with pytest.raises(RefusedError, match="not on the list"):
        await admitted(target, HostRules(["a.b"]), resolver)
    assert resolver.asked == []


async def test_a_pinned_name_asks_nobody() -> None:
    """It leads where the list says."""
    resolver = ScriptedResolver()
    found = await admitted(Target("a.b", 443), HostRules(["a.b=127.0.0.1"]), resolver)
    assert ([str(address) for address in found], resolver.asked) == (["127.0.0.1"], [])


async def test_a_name_without_an_address() -> None:
    """Is no refusal."""
    for resolver in (ScriptedResolver(), ScriptedResolver([])):
        with pytest.raises(UnreachableError, match=r"a\.b has no address"):
            await admitted(Target("a.b", 443), HostRules(["a.b"]), resolver)
