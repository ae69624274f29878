"""When a kept result stands for a job, when not, and what is said of it; in the scripted sandbox."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_runner.attempt_control import AttemptControl
from agent_runner.job_spec import JobSpec
from agent_runner.outcome import EndReason, Outcome, Triggers
from agent_runner.outputs_spec import CacheSpec, OutputsPlace, OutputsSpec
from agent_runner.remains import Remains
from agent_runner.result_cache import entries
from agent_runner.result_cache.fingerprint import TreeDigest
from agent_runner.sandbox_spec import SandboxSpec
from agent_runner.workflow_spec import WorkflowSpec
from sandbox.base import SandboxRequest
from sandbox.scripted import ScriptedProvider

SOURCE = {"src/a.c": b"int", "src/lib/b.c": b"char", "src/.env": b"E=1", "src/.git/index": b"1"}
BUILT = {"src/out/app": b"binary"}
SUCCESS = Outcome(end_reason=EndReason.EXITED, exit_code=0)
JOB = JobSpec(
    argv=("make",),
    name="build",
    env={"MODE": "fast", "TOKEN": "${secret:path:KEY}"},
    outputs=OutputsSpec(paths=("out/**",)),
    cache=CacheSpec(),
)


class Runs:
    """Runs jobs in sandboxes of their own, with one cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache: Path | None = folder / "results"
        self.count = 0
        self.log = ""

    async def run(
        self,
        spec: JobSpec = JOB,
        source: Mapping[str, bytes] = SOURCE,
        outcome: Outcome = SUCCESS,
    ) -> bool:
        """Run a job, or find that none has to be run; tell which."""
        self.count += 1
        provider = ScriptedProvider()
        sandbox = await provider.create(SandboxRequest(name=f"test-{self.count}"))
        sandbox.files = dict(source)
        staged = self.folder / f"staged-{self.count}"
        written: list[bytes] = []
        remains = Remains(
            job_id=f"job{self.count}",
            spec=spec,
            place=OutputsPlace(staged, cache_dir=self.cache),
            mask=lambda text: text.replace("s3cret", "***"),
            control=AttemptControl(),
            write=written.append,
        )
        found = await remains.before(sandbox)
        if found is None:
            sandbox.files |= BUILT
            outcome = await remains.after(sandbox, outcome)
        else:
            assert found.succeeded
            outcome = found
        for file in outcome.outputs.files:
            assert (staged / file.sha256).read_bytes() == BUILT[f"src/{file.name}"]
        self.log = b"".join(written).decode()
        await provider.close()
        return found is None


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path)


async def test_an_equal_job_is_not_run_again(runs):
    """Its outputs come from the kept result; when and where it runs makes no difference, nor does what git notes."""
    assert await runs.run()
    assert runs.log == "runner: cache: miss: no result of 'build' is kept\n"
    same = replace(
        JOB, name="other", labels={"os": "linux"}, priority=5, max_attempts=3, depends_on=("j1",)
    )

    assert not await runs.run(same, SOURCE | {"src/.git/index": b"2"})
    assert runs.log.startswith("runner: cache: hit: nothing is run; job job1 has succeeded with")
    assert "(3 inputs, 1 outputs)" in runs.log


@pytest.mark.parametrize(
    ("fields", "source", "why"),
    [
        ({"argv": ("make", "all")}, {}, "definition (argv)"),
        ({"job_dir": "/job"}, {}, "definition (job_dir)"),
        ({"outputs": OutputsSpec(paths=("out/*",))}, {}, "definition (outputs)"),
        ({"sandbox": SandboxSpec(network="off")}, {}, "definition (sandbox)"),
        ({"env": {"TOKEN": "${secret:path:KEY}"}}, {}, "environment (MODE)"),
        ({"env": {**JOB.env, "TOKEN": "${secret:path:OTHER}"}}, {}, "environment (TOKEN)"),
        ({"cache": CacheSpec(key="2")}, {}, "key"),
        ({}, {"src/a.c": b"long"}, "inputs (a.c)"),
        ({}, {"src/.env": b"E=2"}, "inputs (.env)"),
        ({}, {f"src/s3cret{i}": b"" for i in range(5)}, "inputs (***0, ***1, ***2 and 2 more)"),
        ({"argv": ("x",)}, {"src/a.c": b""}, "definition (argv); inputs (a.c)"),
    ],
)
async def test_what_differs_is_said(runs, fields, source, why):
    await runs.run()

    assert await runs.run(replace(JOB, **fields), SOURCE | source)
    assert runs.log.startswith(f"runner: cache: miss: changed since job job1: {why}\n")


async def test_only_the_named_inputs_count(runs):
    spec = replace(JOB, cache=CacheSpec(inputs=("**/*.c", "!lib/")))
    await runs.run(spec)

    assert not await runs.run(spec, SOURCE | {"src/lib/b.c": b"", "src/.env": b"", "src/new": b""})
    assert await runs.run(spec, SOURCE | {"src/a.c": b""})


@pytest.mark.parametrize(
    ("outcome", "fields"),
    [
        (Outcome(end_reason=EndReason.EXITED, exit_code=1), {}),
        (Outcome(end_reason=EndReason.TIMED_OUT, exit_code=0), {}),
        (replace(SUCCESS, interrupted=True), {}),
        (replace(SUCCESS, triggers=Triggers("{}")), {}),
        (replace(SUCCESS, workflow_output="{}"), {}),
        (replace(SUCCESS, message="processes survived KILL"), {}),
        (SUCCESS, {"outputs": OutputsSpec(paths=("out/**",), max_bytes=1)}),
        (SUCCESS, {"workflow": WorkflowSpec(id="w")}),
    ],
)
async def test_what_is_no_whole_success_is_not_kept(runs, outcome, fields):
    spec = replace(JOB, **fields)

    assert await runs.run(spec, outcome=outcome)
    assert await runs.run(spec, outcome=outcome)


async def test_projects_share_no_results(runs):
    """A job that names none is one of the default project."""
    await runs.run(replace(JOB, project="one"))

    assert await runs.run(replace(JOB, project="two"))
    assert await runs.run(JOB)
    assert not await runs.run(replace(JOB, project="default"))


async def test_the_cache_is_off(runs):
    await runs.run()
    runs.cache = None

    assert await runs.run()
    assert runs.log == "runner: cache: not used: it is off\n"


async def test_a_damaged_result_is_not_used(runs):
    """It is removed; the job runs and its result is kept anew."""
    await runs.run()
    kept = runs.cache.glob("*/results/*/*")
    (content,) = (path for path in kept if path.name != "manifest.json")
    content.write_bytes(b"other!")

    assert await runs.run()
    assert "cannot be used" in runs.log
    assert not await runs.run()


async def test_the_oldest_results_go(runs, monkeypatch):
    """Those that were used last stay."""
    monkeypatch.setattr(entries, "MAX_ENTRIES", 2)
    specs = [replace(JOB, argv=(str(number),)) for number in range(3)]
    for spec in specs[:2]:
        await runs.run(spec)
    results = sorted((runs.cache / os.listdir(runs.cache)[0] / "results").iterdir())
    for age, path in enumerate(results):
        os.utime(path, (1000 + age, 1000 + age))
    assert not await runs.run(specs[0])
    await runs.run(specs[2])

    ran: list[Any] = [await runs.run(specs[0]), await runs.run(specs[2])]
    assert ran == [False, False]
    assert await runs.run(specs[1])


def test_links_and_modes_count():
    tree = TreeDigest(None, lambda: "")
    for mode in (0o644, 0o600, 0o755):
        tree.take(f"f{mode:o}", mode, 0, lambda _: b"")
    tree.link("l", "../x")
    tree.link("n\udcff", "y")

    assert tree.files["f644"] == tree.files["f600"] != tree.files["f755"]
    assert tree.files["l"] == "link ../x"
    assert tree.files["n\\udcff"] == "link y"
