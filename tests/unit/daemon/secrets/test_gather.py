"""Gathering: the environment first, then the prompt, then a clear word about what is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from daemon.errors import SecretNeededError, UsageError
from daemon.secrets.gather import MAX_TRIES, SecretSources, gather
from daemon.secrets.values import GatheredSecret, SecretOrigin, SecretValue, WantedSecret

VALUE = "5f0c" * 8
OPTIONAL = WantedSecret(name="OPT", description="Some API key")
REQUIRED = WantedSecret(name="REQ", required=True)
SKIPPED = "OPT: not set; skipped (jobs that use ${secret:local:OPT} will not run)"


class Person:
    """Answers prompts from a list and remembers what was shown."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.labels: list[str] = []
        self.lines: list[str] = []

    def ask(self, label: str) -> str | None:
        self.labels.append(label)
        return self.answers.pop(0)

    def say(self, line: str) -> None:
        self.lines.append(line)


def revealed(found: dict[str, GatheredSecret]) -> dict[str, str]:
    return {name: secret.value.reveal() for name, secret in found.items()}


def sources(environ: dict[str, str], ask: Callable[[str], str | None] | None) -> SecretSources:
    return SecretSources(environ=environ, ask=ask)


def test_environment_comes_first():
    """What the environment holds is not asked for."""
    person = Person()
    found = gather(
        [REQUIRED, OPTIONAL], sources({"REQ": VALUE, "OPT": "o"}, person.ask), person.say
    )

    assert revealed(found) == {"REQ": VALUE, "OPT": "o"}
    assert person.labels == person.lines == []


def test_empty_variable_is_unset():
    """An empty variable counts as no value."""
    person = Person(VALUE)

    assert revealed(gather([OPTIONAL], sources({"OPT": ""}, person.ask), person.say)) == {
        "OPT": VALUE
    }
    assert person.labels == ["Some API key (OPT; kept in memory only; Enter skips): "]


def test_required_label():
    """A required secret does not offer to be skipped."""
    person = Person(VALUE)
    gather([REQUIRED], sources({}, person.ask), person.say)

    assert person.labels == ["Secret (REQ; kept in memory only; required): "]


@pytest.mark.parametrize("may_ask", [True, False])
def test_skipped_optional_secret_says_what_will_not_run(may_ask):
    """An optional secret without a value costs one line."""
    person = Person(None)
    found = gather([OPTIONAL], sources({}, person.ask if may_ask else None), person.say)

    assert found == {}
    assert person.lines == [SKIPPED]


def test_all_missing_required_secrets_are_named_without_a_terminal():
    """Without a prompt the error names every required secret and where it may come from."""
    person = Person()
    wanted = [REQUIRED, OPTIONAL, WantedSecret(name="ALSO", required=True)]
    with pytest.raises(SecretNeededError) as caught:
        gather(wanted, sources({}, None), person.say)

    assert str(caught.value) == (
        "no value for REQ, ALSO: set environment variables REQ, ALSO, "
        "or run this in a terminal, which asks for it"
    )
    assert caught.value.exit_code == 8
    assert person.lines == []


def test_required_secret_is_asked_for_again():
    """Enter on a required secret asks again, and the answer counts."""
    person = Person(None, "", VALUE)

    assert revealed(gather([REQUIRED], sources({}, person.ask), person.say)) == {"REQ": VALUE}
    assert person.lines == ["REQ: a value is required"] * 2


def test_required_secret_is_given_up():
    """After three times nothing the start fails."""
    person = Person(*[None] * MAX_TRIES)
    with pytest.raises(SecretNeededError, match="no value for REQ"):
        gather([REQUIRED], sources({}, person.ask), person.say)

    assert len(person.labels) == 3


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (VALUE + "\0", "holds a NUL byte"),
        (VALUE * 5000, "is longer than a variable can be (131,000 bytes)"),
        (VALUE + "\udcff", "is not valid UTF-8"),
    ],
    ids=["nul", "long", "bytes"],
)
def test_value_that_cannot_be_handed_on(value, problem):
    """Such a value is refused by name: in the environment for good, at the prompt until it fits."""
    person = Person(value, "fine")
    with pytest.raises(UsageError) as caught:
        gather([REQUIRED], sources({"REQ": value}, person.ask), person.say)
    found = gather([REQUIRED], sources({}, person.ask), person.say)

    assert str(caught.value).startswith(f"REQ: the value in the environment {problem}")
    assert revealed(found) == {"REQ": "fine"}
    assert person.lines[0].startswith(f"REQ: the value {problem}")
    assert VALUE not in str(caught.value) + str(person.lines)


def test_bad_values_for_an_optional_secret_end_in_skipping():
    """An optional secret never stops a start."""
    person = Person(*["x\0"] * MAX_TRIES)

    assert gather([OPTIONAL], sources({}, person.ask), person.say) == {}
    assert person.lines[-1] == SKIPPED


def test_order_is_that_of_the_wishes():
    """Values come in the order in which they were wanted, whatever their source."""
    person = Person("typed")

    assert list(gather([OPTIONAL, REQUIRED], sources({"REQ": "e"}, person.ask), person.say)) == [
        "OPT",
        "REQ",
    ]


@pytest.mark.parametrize("show", [str, repr, "{}".format, "{!r:>4}".format, lambda v: f"{[v]}"])
def test_secret_value_does_not_show_itself(show: Callable[[SecretValue], str]):
    """However it is printed, only stars appear."""
    assert "SecretValue(***)" in show(SecretValue(VALUE))
    assert VALUE not in show(SecretValue(VALUE))


def test_secret_value_is_a_value():
    """Equal values are equal; serialising one is a bug."""
    assert SecretValue("a") == SecretValue("a") != SecretValue("b")
    assert len({SecretValue("a"), SecretValue("a")}) == 1
    with pytest.raises(TypeError):
        SecretValue("a").__reduce__()


def test_prompt_library_is_loaded_only_to_ask():
    """Gathering and even importing the prompt leaves prompt-toolkit alone."""
    code = (
        "import sys, daemon.secrets.gather, daemon.secrets.prompt;"
        "sys.exit('prompt_toolkit' in sys.modules)"
    )

    assert subprocess.call([sys.executable, "-c", code]) == 0


def test_order_of_the_sources():
    """Environment, store, keyring, person; a later source is not even looked at."""
    person = Person("typed")
    looked: list[str] = []

    def keyring(name: str) -> str | None:
        looked.append(name)
        return {"C": "from the keyring"}.get(name)

    found = gather(
        [WantedSecret(name=name, required=True) for name in "ABCD"],
        SecretSources(
            environ={"A": "environment"},
            store={"A": "shadowed", "B": "stored"}.get,
            keyring=keyring,
            ask=person.ask,
        ),
        person.say,
    )
    assert {name: secret.origin for name, secret in found.items()} == {
        "A": SecretOrigin.ENVIRONMENT,
        "B": SecretOrigin.STORE,
        "C": SecretOrigin.KEYRING,
        "D": SecretOrigin.TYPED,
    }
    assert looked == ["C", "D"]
    assert revealed(found)["B"] == "stored"


def test_a_stored_value_that_is_too_long_is_named():
    """With the source, so that a person finds it; nothing of it is shown."""
    with pytest.raises(UsageError, match="REQ: the value in the secret store is longer"):
        gather([REQUIRED], SecretSources(environ={}, store=lambda _: VALUE * 5000), print)


def test_blanks_of_a_paste_are_removed():
    """And the person is told."""
    person = Person(f"  {VALUE} ")
    assert revealed(gather([REQUIRED], sources({}, person.ask), person.say)) == {"REQ": VALUE}
    assert person.lines == ["REQ: blanks around the value were removed"]


@pytest.mark.parametrize("typed", ["sk_ant-" + VALUE, f"https://{VALUE}/", f"{VALUE} {VALUE}"])
def test_something_else_in_the_place_of_a_known_key(typed):
    """It is taken only after a yes, and not repeated."""
    wanted = WantedSecret(name="ANTHROPIC_API_KEY", description="Anthropic API key")
    person = Person(typed, "n", typed, "yes")
    found = gather([wanted], sources({}, person.ask), person.say)
    assert revealed(found) == {"ANTHROPIC_API_KEY": typed}
    assert "does not look like an Anthropic API key" in person.labels[1]
    assert VALUE not in str(person.labels) + str(person.lines)
