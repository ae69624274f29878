"""References to secrets: grammar, escape, resolution, and errors that name no value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runner.errors import InvalidJobSpecError, SecretMissingError
from agent_runner.job_spec import ConcurrencySpec, JobSpec, SourceSpec
from agent_runner.secret_refs import SecretRef, check_refs, find_refs, resolve

VALUE = "5f0c" * 6
TOKEN = SecretRef("local", "NPM_TOKEN")
VALUES = {TOKEN: VALUE, SecretRef("npm/tokens", "X-1"): "other"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${secret:local:NPM_TOKEN}", VALUE),
        ("a ${secret:local:NPM_TOKEN} b", f"a {VALUE} b"),
        ("${secret:local:NPM_TOKEN}${secret:npm/tokens:X-1}", f"{VALUE}other"),
        ("$${secret:local:NPM_TOKEN}", "${secret:local:NPM_TOKEN}"),
        ("$$${secret:local:NPM_TOKEN}", "$${secret:local:NPM_TOKEN}"),
        ("$${secret:", "${secret:"),
        ("$${secret:${secret:local:NPM_TOKEN}", "${secret:" + VALUE),
        ("${secre:local:NPM_TOKEN} ${HOME} $x {}", "${secre:local:NPM_TOKEN} ${HOME} $x {}"),
        ("", ""),
    ],
)
def test_value_is_filled_in(text, expected):
    """References are replaced, escapes become text, all else stays."""
    assert resolve({"A": text}, VALUES) == {"A": expected}


@pytest.mark.parametrize(
    "body",
    [
        "", ":", "local", "local:", ":KEY", "local:A:B", "local:A B", "local:A\n", "local\n:A",
        "/a:K", "a/:K", "a//b:K", "a/b/c/d/e/f/g/h/i:K", "a" * 65 + ":K", "a:" + "K" * 129, "ä:K",
        "local:${X", " local:A",
    ],
)  # fmt: skip
def test_malformed_reference_names_the_variable_only(body):
    """A reference outside the grammar is refused without repeating its text."""
    with pytest.raises(InvalidJobSpecError) as caught:
        find_refs({"GOOD": "x", "BAD": f"x ${{secret:{body}}}"})

    assert caught.value.field == "env.BAD"
    assert "malformed" in caught.value.problem


def test_unclosed_reference():
    """A reference without its end is refused."""
    with pytest.raises(InvalidJobSpecError, match=r"env\.A: .*without its"):
        resolve({"A": "${secret:local:X"}, {})


def test_longest_names_are_accepted():
    """Eight segments of 64 and a key of 128 characters are the limit."""
    path, key = "/".join(["a" * 64] * 8), "k" * 128

    assert find_refs({"A": f"${{secret:{path}:{key}}}"}) == [SecretRef(path, key)]


def test_references_are_distinct_and_in_order():
    """Each reference is listed once, in reading order."""
    env = {"B": "${secret:local:Z} ${secret:local:A}", "A": "${secret:local:Z}"}

    assert find_refs(env) == [SecretRef("local", "Z"), SecretRef("local", "A")]


def test_all_missing_values_are_named_at_once():
    """The error lists every missing reference and what to do, and no value."""
    env = {"A": "${secret:local:NPM_TOKEN} ${secret:local:B}", "C": "${secret:local:D}"}
    with pytest.raises(SecretMissingError) as caught:
        resolve(env, VALUES)

    text = str(caught.value)
    assert text.startswith("no value for ${secret:local:B}, ${secret:local:D}: ")
    assert "--secret B --secret D" in text
    assert VALUE not in text


def test_a_missing_value_of_the_store():
    """A path other than local says how a value gets into the store, or why there is none."""
    with pytest.raises(SecretMissingError, match="runner secrets set"):
        resolve({"A": "${secret:team/db:URL}"}, {})
    with pytest.raises(SecretMissingError, match=r"run-local`; locked$"):
        resolve({"A": "${secret:local:X}"}, {}, "locked")
    with pytest.raises(SecretMissingError, match=r"team/db:URL}: locked$"):
        resolve({"A": "${secret:team/db:URL}"}, {}, "locked")


def test_no_second_expansion():
    """A value that looks like a reference or a template is inserted as it is."""
    value = r"${secret:local:NPM_TOKEN} \1 \g<0>"

    assert resolve({"A": "${secret:local:X}"}, {SecretRef("local", "X"): value}) == {"A": value}


@pytest.mark.parametrize("value", ["x\0y", "x" * 131_000])
def test_value_that_no_variable_can_carry(value):
    """A finished variable with a NUL byte or beyond the kernel's limit is refused by name."""
    with pytest.raises(
        InvalidJobSpecError, match=r"^env\.A: .* once \${secret:local:X} is filled in"
    ):
        resolve({"A": "${secret:local:X}"}, {SecretRef("local", "X"): value})


@given(st.text("$${}secret:local/A ", max_size=60))
def test_any_text_is_filled_or_refused(text):
    """No text breaks the parser, and text without an opening comes back unchanged."""
    try:
        filled = resolve({"A": text}, {SecretRef("local", "A"): "v"})["A"]
    except (InvalidJobSpecError, SecretMissingError):
        return
    if "${secret:" not in text:
        assert filled == text


@given(st.text(st.characters(exclude_characters="\0"), max_size=60))
def test_escaped_text_comes_back(text):
    """Doubling the dollar of each opening protects any text."""
    if "$${secret:" not in text:
        assert resolve({"A": text.replace("${secret:", "$${secret:")}, {}) == {"A": text}


def test_reference_prints_as_written():
    """The text of a reference is the one of the job file."""
    assert str(TOKEN) == "${secret:local:NPM_TOKEN}"


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("name", {"name": "a ${secret:a:K}"}),
        ("job_command", {"argv": ("sh", "-c", "echo ${secret:a/b:K}")}),
        ("labels", {"labels": {"x": "${secret:a:K}"}}),
        ("job_dir", {"job_dir": "/job/${secret:a:K}"}),
        ("source_path", {"source": SourceSpec(kind="copy", path="/x/${secret:a:K}")}),
        ("concurrency", {"concurrency": ConcurrencySpec(group="${secret:a:K}")}),
        ("env.A", {"env": {"A": "${secret:a}"}}),
    ],
)
def test_reference_outside_env_is_refused(field, spec):
    """Anywhere else a value would be seen in ps or in the record of the job."""
    with pytest.raises(InvalidJobSpecError) as caught:
        check_refs(JobSpec(**{"argv": ("x",), **spec}))

    assert caught.value.field == field


@pytest.mark.parametrize(
    "command", ["echo ${secret:0:4} ${secret:2:-1}", "echo '$${secret:a:K}'", "echo ${secret:$a:1}"]
)
def test_a_shell_may_take_a_part_of_its_own_variable(command):
    """What a shell understands, and the escaped text, are no references."""
    check_refs(JobSpec(argv=("sh", "-c", command)))
