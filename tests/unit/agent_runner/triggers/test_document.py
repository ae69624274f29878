"""Documents of triggers: each broken rule is one error with its place, and what is right becomes a graph."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_runner.errors import TriggersRefusedError
from agent_runner.triggers.document import MAX_JOBS, check_document, check_output
from agent_runner.triggers.graph import PARENT, Graph, graphs_of
from agent_runner.triggers.strict_json import read_object


def graphs(text: str, warnings: list[str] | None = None) -> tuple[Graph, ...]:
    """Return the graphs of a document whose job is called build."""
    warned = [] if warnings is None else warnings
    return graphs_of(check_document(read_object(text.encode()), warned.append), ("build", "id"))


def document(*jobs: dict[str, Any], **fields: Any) -> str:
    """Return a document of jobs."""
    return json.dumps({"type": "trigger_job", "jobs": list(jobs), **fields})


def job(name: str = "a", **fields: Any) -> dict[str, Any]:
    """Return a job of a document."""
    return {"job_name": name, "job_command": "true", **fields}


BAD: list[tuple[str, str]] = [
    (document(job(), type="other"), "type: must be trigger_job"),
    (document(job(), type=1), "type: must be text"),
    (document(job(), operation_id=[]), "operation_id: must be text"),
    ('{"jobs": {}}', "jobs: must be a list"),
    ('{"jobs": [1]}', "jobs.0: must be an object"),
    ('{"jobs": [{}]}', "jobs.0.job_name: is missing"),
    ('{"jobs": [{"job_name": null}]}', "jobs.0.job_name: is missing"),
    ('{"workflows": {}}', "workflows: must be a list"),
    ('{"workflows": ["x"]}', "workflows.0: must be an object"),
    ('{"workflow": []}', "workflow: must be an object"),
    ('{"workflow": {"vars": []}}', "workflow.vars: must be an object"),
    ('{"workflow": {"name": "a\\nb"}}', "workflow.name: must be at most 200 printable"),
    (document(job("")), "jobs.0.job_name: must be 1 to 150"),
    (document(job("../x")), "jobs.0.job_name: must be 1 to 150"),
    (document(job("a[0]")), "jobs.0.job_name: must be 1 to 150"),
    (document(job("a\x1b[2J")), "jobs.0.job_name: must be 1 to 150"),
    (document(job(" . ")), "jobs.0.job_name: must be 1 to 150"),
    (document(job(), job()), "jobs (a).job_name: is given twice"),
    (document(job(depends_on="b")), "jobs.0 (a).depends_on: must be a list"),
    (document(job(depends_on=[1])), "jobs.0 (a).depends_on.0: must be text"),
    (document(job(depends_on=["biuld"])), "there is no job 'biuld'; did you mean 'build'?"),
    (document(job(depends_on=["a"])), "jobs: wait for each other: a → a"),
    (
        document(job("a", depends_on=["b"]), job("b", depends_on=["a"])),
        "jobs: wait for each other: ",
    ),
    (document(job(inputs="b")), "jobs.0 (a).inputs: must be a list"),
    (document(job(inputs=[1])), "jobs.0 (a).inputs.0: must be text"),
    (
        document(job(inputs=["biuld"])),
        "jobs (a).inputs: there is no job 'biuld'; did you mean 'build'?",
    ),
    (
        document(job(depends_on=["b"], inputs=["build"]), job("b")),
        "jobs (a).inputs: 'build' is not among what it depends on",
    ),
    (document(job(condition="sometimes")), "jobs.0 (a).condition: must be all_success"),
    (document(job(condition=True)), "jobs.0 (a).condition: must be text"),
    (document(job(env=[])), "jobs.0 (a).env: must be an object"),
    (document(job(env={"A": 1})), "jobs.0 (a).env.A: must be text"),
    (document(job(env={"A-B": "1"})), "jobs.0 (a).env: 'A-B' is not a variable name"),
    (document(job(job_file="/etc/passwd")), "jobs.0 (a).job_file: must be a path below"),
    (document(job(job_file=".")), "jobs.0 (a).job_file: must be a path below"),
    (document(job(job_file="./.")), "jobs.0 (a).job_file: must be a path below"),
    (document(job(job_file="a/../../b")), "jobs.0 (a).job_file: must be a path below"),
    (document(job(job_command=1)), "jobs.0 (a).job_command: must be text or a list"),
    (document(job(priority="1")), "jobs.0 (a).priority: must be a whole number"),
    (document(job(priority=True)), "jobs.0 (a).priority: must be a whole number"),
    (document(job(timeout="1h")), "jobs.0 (a).timeout: must be a whole number or a number"),
    (document(job(capabilities={})), "jobs.0 (a).capabilities: must be a list"),
    (document(job(source_submodules=1)), "jobs.0 (a).source_submodules: must be true or false"),
    (document(job(for_each={})), "jobs.0 (a).for_each: must be a list"),
    (document(job(for_each=[None])), "jobs.0 (a).for_each.0: must be text, a number"),
    (document(job(for_each=[["x"]])), "jobs.0 (a).for_each.0: must be text, a number"),
    (document(job(for_each=["x"], item_var="A B")), "jobs.0 (a).item_var: is not a variable"),
    (document(job(for_each=["x"] * 101)), "jobs.0 (a).for_each: lists more than 100 values"),
    (
        document(job("a", for_each=[1] * 60), job("b", for_each=[1] * 60)),
        f"jobs: are more than {MAX_JOBS} jobs in all",
    ),
    (document(*[job(f"j{n}") for n in range(101)]), "jobs: lists more than 100 jobs"),
    (
        json.dumps({"workflows": [{"jobs": [job("a", for_each=[1] * 60)]}] * 2}),
        "jobs: are 120 jobs in all",
    ),
]

UNREADABLE = [
    (b"", "is not valid JSON"),
    (b"\xff", "holds bytes that are not UTF-8"),
    (b"[]", "must hold an object"),
    (b'{"a": 1, "a": 2}', "gives 'a' twice"),
    (b'{"a": NaN}', "holds NaN"),
    (b'{"a": ' + b"9" * 5000 + b"}", "holds a number of more than 40 digits"),
    (b'{"a": 1e999}', "holds a number that is too large"),
    (b'{"a": "\\ud800"}', "holds half of a surrogate pair"),
    (b'{"a": "\\u0000"}', "holds a NUL character"),
    (b'{"a": ' + b"[" * 20 + b"]" * 20 + b"}", "is nested more than 16 levels deep"),
    (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is nested more than 16 levels deep"),
]


@pytest.mark.parametrize(("text", "problem"), BAD)
def test_a_broken_rule_is_named_with_its_place(text: str, problem: str) -> None:
    """The first one is told, in one line."""
    with pytest.raises(TriggersRefusedError) as caught:
        graphs(text)

    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "problem"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_bytes_that_are_no_document(content: bytes, problem: str) -> None:
    """Nothing that two readers could understand differently is read, however deep or long."""
    with pytest.raises(ValueError, match=problem):
        read_object(content)


def test_jobs_depend_on_their_parent_unless_they_say_otherwise() -> None:
    """Names of siblings come first, then those of the parent."""
    (graph,) = graphs(
        document(
            job("a"),
            job("b", depends_on=["a", "build", "a"], condition="always()"),
            job("c", depends_on=["id"], condition="any_failed(needs)"),
        )
    )

    found = {node.name: (node.depends_on, node.condition) for node in graph.nodes}
    assert found == {
        "a": ((PARENT,), ""),
        "b": (("a", PARENT), "always"),
        "c": ((PARENT,), "any_failed"),
    }


def test_for_each_makes_a_job_of_each_value() -> None:
    """The variable holds text as it is, and anything else as JSON; a name without a number stands for all."""
    (graph,) = graphs(
        document(
            job("all", depends_on=["a"]),
            job("first", depends_on=["a[0]"]),
            job("a", env={"B": "1"}, for_each=["x", 2, True, {"k": "v"}], item_var="IT"),
        )
    )

    nodes = {node.name: node for node in graph.nodes}
    assert [nodes[f"a[{n}]"].env for n in range(4)] == [
        {"B": "1", "IT": text} for text in ("x", "2", "true", '{"k": "v"}')
    ]
    assert nodes["all"].depends_on == ("a[0]", "a[1]", "a[2]", "a[3]")
    assert nodes["first"].depends_on == ("a[0]",)
    assert [node.name for node in graph.nodes].index("all") > 3


def test_null_means_left_out() -> None:
    """As programs of the first generation write it."""
    (graph,) = graphs(document(job(depends_on=None, env=None, condition=None, job_file=None)))

    assert graph.nodes[0].depends_on == (PARENT,)


def test_unknown_fields_are_a_warning() -> None:
    """Other programs write such files too."""
    warnings: list[str] = []
    graphs(document(job(colour="red"), shape=1), warnings)

    assert warnings == [
        "shape: unknown field, not read",
        "jobs.0 (a).colour: unknown field, not read",
    ]


def test_several_workflows_take_precedence() -> None:
    """What stands beside them is not read, and is said."""
    warnings: list[str] = []
    found = graphs(
        json.dumps(
            {"workflows": [{"name": "w", "vars": {"A": 1}, "jobs": [job("b")]}], "jobs": [job("a")]}
        ),
        warnings,
    )

    assert [(one.name, one.variables, [n.name for n in one.nodes]) for one in found] == [
        ("w", {"A": 1}, ["b"])
    ]
    assert warnings == ["jobs: is not read beside workflows"]


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ({"vars": []}, "vars: must be an object"),
        ({"outputs": {"": 1}}, "outputs: a name must have"),
        ({"vars": {"a": "x" * 70_000}}, "vars: are larger than 64 KiB"),
    ],
)
def test_a_broken_output_is_named(output: dict[str, Any], problem: str) -> None:
    """The same goes for what a job gives to its workflow."""
    with pytest.raises(TriggersRefusedError, match=problem):
        check_output(output)
