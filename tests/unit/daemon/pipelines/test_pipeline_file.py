"""Pipeline files: what is wrong is one line with its place, and what is right becomes jobs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.errors import InvalidJobFileError
from daemon.pipelines.pipeline_file import Pipeline, load_pipeline


def load(text: str, folder: Path = Path("/absent"), name: str = "p.yaml") -> Pipeline:
    """Return a pipeline."""
    return load_pipeline(text.encode(), name, folder, to_run_here=True)


BAD = [
    ("", "p.yaml:1:1: the file is empty"),
    ("[]", "p.yaml:1:1: a job must be a mapping"),
    ("name: x", "p.yaml:1:1: jobs: is missing"),
    ("jobs: []", "p.yaml:1:7: jobs: must be a mapping of names to jobs"),
    ("jobs: {}", "p.yaml:1:7: jobs: must be a mapping of names to jobs"),
    ("command: x", "p.yaml:1:1: command: unknown field; `runner run-local` runs a file of one job"),
    ("jbos: {}", "p.yaml:1:1: jbos: unknown field; did you mean 'jobs'?"),
    ("name: 1\njobs: {a: {command: x}}", "p.yaml:1:7: name: must be text"),
    ("vars: 1\njobs: {a: {command: x}}", "p.yaml:1:7: vars: must be an object"),
    ("jobs:\n  a: x", "p.yaml:2:6: jobs.a: must be a mapping"),
    ("jobs:\n  a/b: {command: x}", "p.yaml:2:3: jobs.a/b: must be printable, without /"),
    ("jobs:\n  'a[0]': {command: x}", "p.yaml:2:3: jobs.a[0]: must be printable, without /"),
    ("jobs:\n  a: {}", "p.yaml:2:3: jobs.a: job_command: is missing"),
    ("jobs:\n  a:\n    comand: x", "p.yaml:3:5: jobs.a: comand: unknown field; did you mean"),
    (
        "jobs:\n  a:\n    command: x\n    env: {A: [1]}",
        "p.yaml:4:10: jobs.a.env: must be a mapping",
    ),
    (
        "jobs:\n  a:\n    command: x\n    env: {A-B: x}",
        "p.yaml:4:11: jobs.a: env.A-B: is not a variable",
    ),
    (
        "jobs:\n  a:\n    command: x\n    env: {A: x}\n    environment: {}",
        "p.yaml:5:5: jobs.a.environment: means",
    ),
    ("jobs:\n  a: {command: x, priority: x}", "p.yaml:2:19: jobs.a: priority: must be a whole"),
    ("jobs:\n  a: {command: x, timeout: 0}", "jobs.a: timeout: must be more than 0"),
    ("jobs:\n  a: {command: x, depends_on: {}}", "p.yaml:2:31: jobs.a.depends_on: must be a list"),
    (
        "jobs:\n  a: {command: x, depends_on: [b]}",
        "p.yaml:2:19: jobs.a.depends_on: there is no job 'b'",
    ),
    ("jobs:\n  a: {command: x, depends_on: [a]}", "jobs: wait for each other: a → a"),
    ("jobs:\n  a: {command: x, condition: maybe}", "p.yaml:2:30: jobs.a.condition: must be"),
    (
        "jobs:\n  a: {command: x, condition: always}",
        "p.yaml:2:19: jobs.a.condition: needs depends_on",
    ),
    ("jobs:\n  a: {command: x, for_each: x}", "p.yaml:2:29: jobs.a.for_each: must be a list"),
    ("jobs:\n  a: {command: x, for_each: [[1]]}", "p.yaml:2:30: jobs.a.for_each: must hold"),
    ("jobs:\n  a: {command: x, item_var: 1a}", "p.yaml:2:29: jobs.a.item_var: is not a variable"),
    ("jobs:\n  a: {job_file: absent.yaml}", "p.yaml:2:7: jobs.a.job_file: is neither in"),
    ("jobs:\n  a: {job_file: [x]}", "p.yaml:2:17: jobs.a.job_file: must be text"),
    ("jobs:\n  a: {command: x}\n  a: {command: y}", "p.yaml:3:3: jobs.a: is given twice"),
    (
        "jobs:\n  a: {command: x, disable_run_local: true}",
        "says that this job is not for run-local",
    ),
    ("jobs:\n  a: {command: 'echo ${secret:a/b:C}'}", "holds a secret reference"),
    ("jobs:\n  a: {command: x, source_type: git, source_url: 'ext::id'}", "jobs.a: source_url"),
    ('jobs:\n  a: {job_file: "a\\0b"}', "p.yaml:2:7: jobs.a.job_file: is neither in"),
    ("jobs:\n  a: {job_file: /dev/zero}", "p.yaml:2:7: jobs.a.job_file: is neither in"),
    ("jobs:\n  a: {job_file: /dev/stdin}", "p.yaml:2:7: jobs.a.job_file: is neither in"),
    ("jobs:\n  a b (c):\n    comand: x", "p.yaml:3:5: jobs.a b (c): comand: unknown field"),
    ("jobs:\n  a: {command: x}\n  a):\n    comand: x", "p.yaml:4:5: jobs.a): comand: unknown"),
    ("jobs:\n  a.b: {command: x}\n  a: {comand: x}", "p.yaml:3:7: jobs.a: comand: unknown"),
    ("jobs:\n  a: {command: x, job_command: y}", "means the same as command; keep one"),
    ("jobs:\n  a: {command: x, for_each: [.nan]}", "p.yaml:2:30: jobs.a.for_each: holds a number"),
    ("jobs:\n  a: {command: x, for_each: [{b: 1e999}]}", "p.yaml:2:34: jobs.a.for_each: holds"),
    (f"jobs:\n  a: {{command: x, for_each: [{'9' * 41}]}}", "holds a number of more than 40"),
    (f"jobs:\n  a: {{command: x, for_each: [0x{'f' * 41}]}}", "holds a number of more than 40"),
    ('jobs:\n  a: {command: x, for_each: ["a\\0"]}', "jobs.a[0]: env.ITEM: holds a NUL byte"),
    ("name: x\nvars:\n  A: [-.inf]\njobs: {a: {command: x}}", "p.yaml:3:7: vars: holds a number"),
    ("vars: {A: 1e400}\njobs: {a: {command: x}}", "p.yaml:1:11: vars: holds a number that JSON"),
    (f"name: {'n' * 201}\njobs: {{a: {{command: x}}}}", "p.yaml:1:7: name: must be at most 200"),
    ('name: "a\\nb"\njobs: {a: {command: x}}', "p.yaml:1:7: name: must be at most 200 print"),
    ("jobs:\n  a: &a {command: x}", "p.yaml:2:6: anchors (&name) are not supported"),
    ("# x\n%FOO bar\n---\njobs: {a: {command: x}}", "p.yaml:2:1: directives (%YAML, %TAG)"),
    (
        "name: p\njobs:\n  a: {command: x, depends_on: [b]}\n  b: {command: x, depends_on: [a]}",
        "p.yaml:2:1: jobs: wait for each other: a → b → a",
    ),
    (
        "name: p\njobs:\n"
        + "".join(f"  j{n}: {{command: x, for_each: [1, 2]}}\n" for n in range(51)),
        "p.yaml:2:1: jobs: are more than 100 jobs in all",
    ),
    ("jobs:\n  a: {command: x, inputs: {}}", "p.yaml:2:27: jobs.a.inputs: must be a list of names"),
    ("jobs:\n  a: {command: x, inputs: [b]}", "p.yaml:2:19: jobs.a.inputs: there is no job 'b'"),
    (
        "jobs:\n  b: {command: x}\n  a: {command: x, inputs: [b]}",
        "p.yaml:3:19: jobs.a.inputs: 'b' is not among what it depends on",
    ),
    (
        "jobs:\n  b: {command: x}\n  a: {command: x, depends_on: [b], inputs: [b], cache: {}}",
        "p.yaml:3:36: jobs.a: inputs: cannot be together with cache",
    ),
    (
        "jobs:\n  a b: {command: x}\n  a-b: {command: x}\n  c: {command: x, depends_on: [a b, a-b], inputs: [a b, a-b]}",
        "p.yaml:4:43: jobs.c: inputs: 'a b' and 'a-b' would share the folder a-b",
    ),
    (
        "jobs:\n  a: {command: x, depends_on: [b], condition: always}\n  b: {command: x, for_each: []}",
        "p.yaml:2:36: jobs.a.condition: needs depends_on",
    ),
]


@pytest.mark.parametrize(("text", "problem"), BAD, ids=range(len(BAD)))
def test_what_is_wrong_has_its_place(text: str, problem: str) -> None:
    """One line, which names the file, the place and the field."""
    with pytest.raises(InvalidJobFileError) as caught:
        load(text)

    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("p.yaml:")


def test_a_job_file_is_not_waited_for(tmp_path: Path) -> None:
    """A FIFO that nobody writes would hold up the command for ever."""
    os.mkfifo(tmp_path / "fifo.yaml")
    with pytest.raises(InvalidJobFileError, match="job_file: is neither in"):
        load("jobs:\n  a: {job_file: fifo.yaml}", tmp_path)


def test_job_files_are_found_beside_the_folder_and_laid_over(tmp_path: Path) -> None:
    """First in ../jobs, then in the folder of the file; the environment is merged."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "flows").mkdir()
    (tmp_path / "jobs" / "a.yaml").write_text("command: first\nenv: {A: '1', B: '2'}\n")
    (tmp_path / "flows" / "a.yaml").write_text("command: second\n")
    (tmp_path / "flows" / "b.yaml").write_text("command: second\nsource: {type: copy, path: .}\n")
    found = load(
        "on: {events: [push]}\njobs:\n  x: {job_file: a.yaml, environment: {B: 3}, priority: 7}\n  y: {job_file: b.yaml}",
        tmp_path / "flows",
    )

    x, y = found.specs["x"], found.specs["y"]
    assert (x.name, x.argv[-1], dict(x.env), x.priority) == ("x", "first", {"A": "1", "B": "3"}, 7)
    assert (y.argv[-1], y.source.path) == ("second", str(tmp_path / "flows"))


@pytest.mark.parametrize(
    ("file", "name"),
    [("release.yaml", "release"), ("x" * 250 + ".yaml", "x" * 200), ("\udcff.yaml", "pipeline")],
)
def test_a_pipeline_without_a_name_has_one(file: str, name: str) -> None:
    """That of its file, if it can be one."""
    assert load("jobs: {a: {command: x}}", name=file).name == name


def test_a_job_of_each_value(tmp_path: Path) -> None:
    """As in triggers; who depends on the name depends on all."""
    found = load(
        "vars: {V: [1]}\njobs:\n  a: {command: x, for_each: [p, 2], item_var: IT}\n  b: {command: y, depends_on: a, inputs: a}",
        tmp_path,
    )

    nodes = {node.name: node for node in found.graph.nodes}
    assert nodes["b"].inputs == ("a[0]", "a[1]")
    assert (found.name, found.variables) == ("p", {"V": [1]})
    assert [dict(found.specs[name].env) for name in ("a[0]", "a[1]")] == [{"IT": "p"}, {"IT": "2"}]
    assert nodes["b"].depends_on == ("a[0]", "a[1]")
