"""The dialect of the first generation: what it says and how that is read."""

from __future__ import annotations

import subprocess

import pytest

from tests.unit.daemon.jobfile.loading import error, errors, load

FIRST_GENERATION = """\
name: build
description: Builds it
triggers: {events: [push, pull_request], branches: [main]}
paths: {include: ["src/**"], exclude: ["docs/**"]}
priority: 5
source: {type: git, url: "https://github.com/org/repo", ref: main}
ci_source: {type: git, url: "https://github.com/org/ci-scripts", ref: main}
container: {image: "containers.example.com/public/runnerbase:dev"}
run_as: {user: runner}
run_local: {as_runner: true}
raw_command: true
job:
  command: ./scripts/build.sh
  timeout: 60
  working_dir: /job/src
  environment: {DEBUG: "true", NPM_TOKEN: "${secret:npm/tokens:NPM_TOKEN}"}
  resources: {cpu: {request: 100m, limit: 1500m}, memory: {request: 128Mi, limit: 512Mi}}
  characteristics: {os: linux, arch: amd64}
  capabilities: [builder]
"""


def test_a_whole_file():
    """Every field arrives where it belongs now."""
    spec = load(FIRST_GENERATION)
    assert spec.argv[2] == "./scripts/build.sh"
    assert (spec.priority, spec.timeout_s, spec.job_dir) == (5, 60, "/job/src")
    assert (spec.source.kind, spec.source.url, spec.source.ref) == (
        "git",
        "https://github.com/org/repo",
        "main",
    )
    assert spec.ci_source.url == "https://github.com/org/ci-scripts"
    assert (spec.sandbox.cpus, spec.sandbox.memory_bytes) == (1.5, 512 << 20)
    assert spec.container_image == "containers.example.com/public/runnerbase:dev"
    assert spec.labels == {"os": "linux", "arch": "amd64", "builder": "true"}
    assert spec.env["NPM_TOKEN"] == "${secret:npm/tokens:NPM_TOKEN}"


def test_variables_of_the_first_generation():
    """Jobs that deploy it have variables with its prefix; only what the runner sets itself is reserved."""
    spec = load("command: x\nenv: {REACTORCIDE_DEPLOY_HOST: h, REACTORCIDE_DB_PASSWORD: p}")
    assert spec.env["REACTORCIDE_DEPLOY_HOST"] == "h"
    for name in ("REACTORCIDE_JOB_ID", "REACTORCIDE_CODE_DIR", "REACTORCIDE_SOURCE_URL"):
        assert "is reserved" in error(f"command: x\nenv: {{{name}: h}}")


@pytest.mark.parametrize("name", ["commands", "steps"])
def test_steps(name: str):
    """They run in order up to the first failure, each below its header, with its own exit code."""
    spec = load(
        f"{name}:\n- {{name: 'it''s one', command: 'cd /; X=1; echo a'}}\n"
        "- 'echo \"b$X\"; exit 3'\n- echo never\n"
    )
    done = subprocess.run(spec.argv, capture_output=True, check=False)
    assert done.stdout == b"==> it's one\na\n==> step 2\nb\n"
    assert done.returncode == 3
    spec = load(f"{name}: [echo a, 'true']")
    assert subprocess.run(spec.argv, capture_output=True, check=False).returncode == 0


def test_a_job_that_is_not_for_run_local():
    """It is refused there only, by name."""
    from daemon.errors import InvalidJobFileError
    from daemon.jobfile.loader import load_job_file
    from tests.unit.daemon.jobfile.loading import BASE

    text = "job_command: x\ndisable_run_local: true\n"
    assert load(text).argv
    with pytest.raises(InvalidJobFileError, match=r"job.yaml:2:20: disable_run_local: says"):
        load_job_file(text.encode(), "job.yaml", BASE, to_run_here=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run_as: {user: root}", "2:10: run_as.user: is not supported by this version yet"),
        ("run_as: {usr: root}", "2:10: run_as.usr: unknown field; did you mean 'user'?"),
        ("run_as: root", "2:9: run_as: must be a mapping with user"),
        ("capabilities: [docker]", "2:16: capabilities.0: docker is not supported by this version yet"),
        ("capabilities: [[a]]", "2:16: capabilities.0: must be text"),
        ("capabilities: a", "2:15: capabilities: must be a list of texts"),
        ("capabilities: [a b]", "2:16: capabilities.0: is not a label name"),
        ("resources: {cpu: lots}", "2:18: resources.cpu: must be a number of CPUs, such as 500m or 2"),
        ("resources: {cpu: {limit: -1}}", "2:26: resources.cpu.limit: must be a number of CPUs, such as 500m or 2"),
        ("resources: {cpu: {limt: 1}}", "2:19: resources.cpu.limt: unknown field; did you mean 'limit'?"),
        ("resources: {memory: {limit: lots}}", "2:29: resources.memory.limit: must be a whole number of bytes, or like 512MiB or 1.5GB"),
        ("resources: {gpu: 1}", "2:13: resources.gpu: unknown field; did you mean 'cpu'?"),
        ("resources: {memory: 1Gi}\nsandbox: {memory: 1Gi}", "2:13: resources.memory: means the same as sandbox.memory (line 3); keep one of them"),
        ("characteristics: {os: linux}\nlabels: {os: linux}", "2:19: characteristics.os: means the same as labels.os (line 3); keep one of them"),
        ("job: {job: {command: y}}", "2:7: job.job: unknown field; did you mean 'job_dir'?"),
        ("triggers: {event: [a]}", "2:12: triggers.event: unknown field; did you mean 'events'?"),
        ("paths: {include: a}", "2:18: paths.include: must be a list"),
        ("description: [a]", "2:14: description: must be text"),
        ("raw_command: 'yes'", "2:14: raw_command: must be true or false"),
        ("disable_run_local: 1", "2:20: disable_run_local: must be true or false"),
        ("steps: [a]", "2:1: steps: a job has either job_command or steps"),
        ("container: {image: '-x'}", "2:20: container.image: is not the name of an image"),
        ("image: 'a b'", "2:8: image: is not the name of an image"),
        ("image: a\ncontainer_image: b", "3:1: container_image: means the same as image (line 2); keep one of them"),
        ("image: 'a:${secret:a:B}'", "2:8: image: is not the name of an image"),
        ("container: {working_dir: /etc}", "2:26: container.working_dir: must be /job or a path below it"),
        ("source: {type: copy, path: a}\nsource_path: b", "3:1: source_path: means the same as source.path (line 2); keep one of them"),
    ],
)  # fmt: skip
def test_a_place_in_an_older_file(text: str, expected: str):
    """Errors name the older spelling."""
    assert error(f"job_command: x\n{text}") == f"job.yaml:{expected}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps: []", "1:8: steps: must not be empty"),
        ("steps: [{name: a}]", "1:9: steps.0.command: is missing"),
        ("steps: [{command: ' '}]", "1:19: steps.0.command: must not be empty"),
        ("steps: [3]", "1:9: steps.0: must be a mapping of fields"),
        ("steps: [{command: a, cmd: b}]", "1:22: steps.0.cmd: unknown field; did you mean 'command'?"),
    ],
)  # fmt: skip
def test_malformed_steps(text: str, expected: str):
    """They have places like everything."""
    assert error(text) == f"job.yaml:{expected}"


def test_late_fields_in_any_order():
    """What stands elsewhere for a part of a field does not depend on the order of the file."""
    one = load("resources: {cpu: 2}\ncommand: x\nsandbox: {network: off}\n")
    two = load("sandbox: {network: off}\ncommand: x\nresources: {cpu: {limit: '2'}}\n")
    assert one == two
    assert (one.sandbox.cpus, one.sandbox.network) == (2.0, "off")
    assert len(errors("job: 3\nsandbox: 4\nresources: {cpu: 1}\n")) == 2
