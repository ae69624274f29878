"""Job files: what they may say, in both dialects, and errors with the right place."""

from __future__ import annotations

import itertools
import json
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_runner.job_spec import ConcurrencySpec, JobSpec, RetryPolicy
from agent_runner.outcome import EndReason
from daemon.errors import InvalidJobFileError
from daemon.jobfile.dialect import FIELDS, NESTED, NOT_YET, OLDER
from daemon.jobfile.loader import load_job_file
from daemon.jobfile.model import JobFields
from daemon.jobfile.reading import MAX_FILE_BYTES
from tests.unit.daemon.jobfile.loading import BASE, error, errors, load

FULL = """\
name: build
job_command: ./scripts/build.sh
source_type: copy
source_path: src
code_dir: /job/src
job_dir: /job/src/lib
env: { TOKEN: "${secret:local:TOKEN}", VERSION: 1.10, DEBUG: true, OCTAL: 010, ANSWER: on }
timeout_seconds: 90
idle_timeout_seconds: 2.5
sandbox:
  { kind: filesystem, min: bwrap, network: off, memory: 2GiB, pids: 512, output: 1.5GB,
    cpus: 1.5, disk: 10GiB, open_files: 99, require: [network, memory], protect: false,
    reuse: project, nested: dind, cache: true }
labels: { gpu: "1" }
priority: -5
retries: { max: 3, backoff_seconds: 2.5, on: [75, TIMED_OUT] }
concurrency: { group: deploy, limit: 2 }
depends_on: [a1, b2]
not_before: 2027-01-31T18:00:00.5+01:00
max_attempts: 5
"""


def test_every_field():
    """Each field of the present dialect arrives in the job."""
    spec = load(FULL)

    assert spec.argv == ("/bin/sh", "-c", "./scripts/build.sh")
    assert (spec.name, spec.priority, spec.labels) == ("build", -5, {"gpu": "1"})
    assert (spec.source.kind, spec.source.path) == ("copy", "/base/dir/src")
    assert (spec.code_dir, spec.job_dir) == ("/job/src", "/job/src/lib")
    assert (spec.timeout_s, spec.idle_timeout_s) == (90.0, 2.5)
    assert (spec.sandbox.kind, spec.sandbox.min, spec.sandbox.network) == (
        "filesystem",
        "bwrap",
        "off",
    )
    assert (spec.sandbox.memory_bytes, spec.sandbox.pids) == (2 << 30, 512)
    assert spec.sandbox.output_bytes == 1_500_000_000
    assert (spec.sandbox.cpus, spec.sandbox.disk_bytes, spec.sandbox.open_files) == (
        1.5,
        10 << 30,
        99,
    )
    assert spec.sandbox.unprotected
    reused = (spec.sandbox.reuse, spec.sandbox.nested, spec.sandbox.cache)
    assert reused == ("project", "dind", True)
    assert spec.sandbox.require == ("network", "memory")
    assert spec.retries == RetryPolicy(
        max=3, backoff_s=2.5, exit_codes=(75,), end_reasons=(EndReason.TIMED_OUT,)
    )
    assert spec.concurrency == ConcurrencySpec(group="deploy", limit=2)
    assert (spec.depends_on, spec.max_attempts) == (("a1", "b2"), 5)
    assert spec.not_before_us == 1_801_414_800_500_000


def test_environment_keeps_its_source_text():
    """Numbers and booleans in the environment are what the file shows."""
    assert load(FULL).env == {
        "TOKEN": "${secret:local:TOKEN}",
        "VERSION": "1.10",
        "DEBUG": "true",
        "OCTAL": "010",
        "ANSWER": "on",
    }


def test_defaults_are_those_of_the_job():
    """A file with a command only equals a job with a command only."""
    assert load("job_command: [sleep, '5']", "a/b/nightly.job.yml") == JobSpec(
        argv=("sleep", "5"), name="nightly.job"
    )


@pytest.mark.parametrize("name", ["-", "dir/\udcff.yaml", "  .yaml"])
def test_file_without_a_usable_name(name):
    """Standard input and odd file names give the name `job`."""
    assert load("job_command: x", name).name == "job"


def test_older_dialect_means_the_same():
    """The spellings of the first generation give the same job, flat and nested."""
    new = load("job_command: make\nenv: {A: 1}\ntimeout_seconds: 5\njob_dir: /job/x\n")

    assert load("command: make\nenvironment: {A: 1}\ntimeout: 5\nworking_dir: /job/x\n") == new
    nested = "job:\n  command: make\n  environment: {A: 1}\n  timeout: 5\n  working_dir: /job/x\n"
    assert load(nested) == new


def test_older_source():
    """A nested source is the same as its flat names."""
    assert load("command: x\nsource: {type: copy, path: /abs}").source.path == "/abs"
    assert load("job: {command: x, source: {type: copy, path: ~/x}}").source.path == "/base/dir/~/x"


@pytest.mark.parametrize("name", ["job.json", "job.yaml", "job.JSON"])
def test_json(name):
    """JSON is read under either name, tabs, escapes and surrogate pairs included."""
    text = '{\t"job_command":\t"a\\u00e9\\ud83d\\ude00",\n\t"env": {"V": 1.10, "T": true}\n}\n'
    spec = load(text, name)

    assert spec.argv[2] == "aé😀"
    assert spec.env == {"V": "1.10", "T": "true"}


def test_utf8_byte_order_mark():
    """A UTF-8 mark at the start is ignored."""
    assert load(b"\xef\xbb\xbfjob_command: x").argv[2] == "x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1: the file is empty; a job needs at least job_command"),
        ("# only a comment\n", "1:1: the file is empty; a job needs at least job_command"),
        ("- a", "1:1: a job must be a mapping of fields, such as job_command"),
        ("name: x\n", "1:1: job_command: is missing"),
        ("job_command: x\na: 1\n", "2:1: a: unknown field"),
        ("job_comand: x\n", "1:1: job_comand: unknown field; did you mean 'job_command'?"),
        ("job: {comand: x}", "1:7: job.comand: unknown field; did you mean 'command'?"),
        ("job_command: x\nsource: {paht: y}", "2:10: source.paht: unknown field; did you mean 'path'?"),
        ("job_command: x\nsandbox: {memry: 1}", "2:11: sandbox.memry: unknown field; did you mean 'memory'?"),
        ("job_command: x\ntimeout_seconds: soon", "2:18: timeout_seconds: must be a number"),
        ("job_command: x\ntimeout: true", "2:10: timeout: must be a number"),
        ("job_command: x\ntimeout:", "2:1: timeout: has no value; give it one or remove it"),
        ("job_command: x\ntimeout: 0", "2:10: timeout: must be more than 0 and at most 30 days"),
        ("job_command: x\ntimeout: .nan", "2:10: timeout: must be more than 0 and at most 30 days"),
        ("job_command: x\npriority: 1.5", "2:11: priority: must be a whole number"),
        ("job_command: x\nname: 5", "2:7: name: must be text; put it in quotes"),
        ("job_command: {a: b}", "1:14: job_command: must be text for a shell, or a list of texts"),
        ("job_command: [a, 5]", "1:18: job_command.1: must be text; put it in quotes"),
        ("job_command: ' '", "1:14: job_command: must not be empty"),
        ("job_command: x\nenv: [A=b]", "2:6: env: must be a mapping of names to values"),
        ("job_command: x\nenv: {A: [b]}", "2:10: env.A: must be text"),
        ("job_command: x\nenv:\n  A:\n", "3:3: env.A: has no value; give it one or remove it"),
        ("job_command: x\nenv: {1A: b}", "2:7: env.1A: is not a variable name"),
        ("job_command: x\nenv: {RUNNER_X: b}", "2:17: env.RUNNER_X: is reserved: the runner sets it itself"),
        ('job_command: x\nenv: {A: "a\\0b"}', "2:10: env.A: holds a NUL byte, which no command line or variable can carry"),
        ("job_command: x\nlabels: {a b: c}", "2:10: labels.a b: is not a label name"),
        ("job_command: x\nsandbox: container", "2:10: sandbox: must be a mapping of fields"),
        ("job_command: x\nsandbox: {min: best}", "2:16: sandbox.min: must be one of bwrap, landlock, plain"),
        ("job_command: x\nsandbox: {memory: lots}", "2:19: sandbox.memory: must be a whole number of bytes, or like 512MiB or 1.5GB"),
        ("job_command: x\nsource_type: copy", "2:14: source_type: copy needs source_path"),
        ("job_command: x\nsource_path: y", "2:14: source_path: needs source_type: copy"),
        ("job_command: x\njob_dir: /etc", "2:10: job_dir: must be /job or a path below it"),
        ("job_command: x\ncommand: y", "2:1: command: means the same as job_command (line 1); keep one of them"),
        ("job: {command: x}\nenvironment: {}\nenv: {}", "3:1: env: means the same as environment (line 2); keep one of them"),
        ("agent: {use: [x]}", "1:1: agent: is not supported by this version yet"),
        ("job_command: x\nsource_type: git", "2:14: source_type: git needs source_url"),
        ("job_command: x\nci_source: {type: copy}", "2:19: ci_source.type: copy needs ci_source_path"),
        ("job_command: x\nsource: {url: y}", "2:15: source.url: needs source_type: git"),
        ("job_command: x\nci_source: git", "2:12: ci_source: must be a mapping with type, path, url, ref"),
        ("job_command: x\nsandbox: {cpus: -2}", "2:17: sandbox.cpus: must lie between 0 and 4096"),
        ("job_command: x\nsandbox: {require: [memory]}", "2:20: sandbox.require: memory needs a bound in sandbox.memory"),
        ("job_command: x\nsandbox: {require: [luck]}", "2:20: sandbox.require: 'luck' is none of fs_write, fs_read, processes, protect, syscalls, metadata, tree_kill, network, job_uid, memory, cpus, pids, disk"),
        ("job_command: x\nsandbox: {kind: kubernetes}", "2:17: sandbox.kind: kubernetes is not supported by this version yet"),
        ("job_command: x\nsandbox: {fallback: maybe}", "2:21: sandbox.fallback: must be one of never, ask, allow"),
        ("job_command: x\nsandbox: {kind: filesystem, fallback: allow}", "2:39: sandbox.fallback: is for containers; the kind is filesystem"),
        ("job_command: x\nenv: {A: '1'}\nsandbox: {container_only: [A, B]}", "3:31: sandbox.container_only.1: 'B' is no variable of env"),
        ("job_command: x\nsandbox: {network: []}", "2:20: sandbox.network: lists no host; say off for none"),
        ("job_command: x\nsandbox: {network: maybe}", "2:20: sandbox.network: must be one of on, off"),
        ("job_command: x\nsandbox: {network: [a, 3]}", "2:24: sandbox.network.1: must be text; put it in quotes"),
        ("job_command: x\nsandbox: {network: [a, 'http://b']}", "2:24: sandbox.network.1: 'http://b' is no host with or without :PORT"),
        ("a: 1\nb: 2\na: 3", "3:1: a: is given twice (first in line 1)"),
        ("job_command: x\nenv:\n  A: 1\n  A: 2", "4:3: env.A: is given twice (first in line 3)"),
        ("a: &x 1\nb: *x", "2:4: aliases (*name) are not supported; write the value out"),
        ("a: !!int 5", "1:4: tags (!name) are not supported; quote the value instead"),
        ("--- {a: b}\n--- {c: d}", "2:1: starts a second document; a job file holds one job"),
        ("%YAML 1.1\n---\na: on", "2:1: directives (%YAML, %TAG) are not supported"),
        ("\n# x\n%FOO\n---\na: on", "3:1: directives (%YAML, %TAG) are not supported"),
        ("job_command: &x y", "1:14: anchors (&name) are not supported; leave it out"),
        ("&x job_command: y", "1:1: anchors (&name) are not supported; leave it out"),
        (f"steps: [{'x, ' * 5000}]", "1:8: steps: is longer than 131000 characters"),
        ("1: x", "1:1: names of fields must be text; put this one in quotes"),
        ("? [a]\n: x", "1:3: names of fields must be text"),
        ("a:\n\tb: 1", "2:1: is not valid YAML: a tab cannot indent; use spaces"),
        ("[" * 99, "1:17: is nested more than 16 levels deep"),
        ('a: "\\ud800"', "1:4: holds half of a surrogate pair, which is not valid Unicode"),
        ('a: "\\U00110000"', "1:1: is not valid YAML near this place"),
        ("a: \x01", "1:4: holds the control character U+0001"),
        ("a: b\nc: \0", "2:4: holds a NUL byte"),
        (b"a: b\nc: d\xff", "2:5: holds bytes that are not UTF-8"),
        (b"\xff\xfea\0:\0", "1:1: the file is encoded as UTF-16; save it as UTF-8"),
        (b"\0\0\xfe\xff", "1:1: the file is encoded as UTF-32; save it as UTF-8"),
        ("#" * (MAX_FILE_BYTES + 1), "1:1: the file is larger than 256 KiB"),
    ],
)  # fmt: skip
def test_yaml_error(text, expected):
    """Each fault gives one line with its place, its field and what is wrong."""
    assert error(text) == f"job.yaml:{expected}"


@pytest.mark.parametrize("text", ["a: [1,\n", 'a: "x', "a: b: c", "a: 'x\n", "@a: b", "a: `b`"])
def test_yaml_syntax_error(text):
    """Text that is not YAML says so, with the place."""
    place, _, reason = error(text).partition(": ")

    assert place.startswith(("job.yaml:1:", "job.yaml:2:"))
    assert reason.startswith("is not valid YAML: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1: the file is empty; a job needs at least job_command"),
        ('{"a": 1,}', "1:9: is not valid JSON: expecting a field name in double quotes"),
        ('{"a" 1}', "1:6: is not valid JSON: expecting ':'"),
        ('{"a": 1 "b"}', "1:9: is not valid JSON: expecting ',' or '}'"),
        ('{"a": [1 2]}', "1:10: is not valid JSON: expecting ',' or ']'"),
        ('{"a": }', "1:7: is not valid JSON: Expecting value"),
        ('{"a": NaN}', "1:7: is not valid JSON: NaN and Infinity are not numbers of JSON"),
        ("{} x", "1:4: is not valid JSON: something follows the end of the job"),
        ("[]", "1:1: a job must be a mapping of fields, such as job_command"),
        ('{"a": 1,\n "a": 2}', "2:2: a: is given twice (first in line 1)"),
        ('{"env": {"A": 1, "A": 2}}', "1:18: env.A: is given twice (first in line 1)"),
        ('{"job_command": "x",\n "timeout": "5"}', "2:13: timeout: must be a number"),
        ('{"job_command": "x", "name": "\\ud800"}', "1:30: holds half of a surrogate pair, which is not valid Unicode"),
        ('{"a":' * 99, "1:86: is nested more than 16 levels deep"),
        ('{"job_command": "x", "timeout": ' + "9" * 5000 + "}", "1:33: timeout: must be more than 0 and at most 30 days"),
    ],
)  # fmt: skip
def test_json_error(text, expected):
    """Faults of JSON have the same form."""
    assert error(text, "job.json") == f"job.json:{expected}"


def test_all_problems_in_file_order():
    """Several faults are told together, first place first, at most ten."""
    lines = errors("sandbx: 1\njob_command: x\ntimeout: a\nenv: {A: }\ngates: []\n")

    assert [line.split(": ")[0] for line in lines] == [
        "job.yaml:1:1",
        "job.yaml:3:10",
        "job.yaml:4:7",
        "job.yaml:5:1",
    ]
    assert len(errors("".join(f"f{number}: x\n" for number in range(30)))) == 10


@pytest.mark.parametrize("field", sorted(NOT_YET))
def test_fields_of_later_versions(field):
    """What this version cannot do is refused by name, never ignored."""
    assert error(f"job_command: x\n{field}: 1") == (
        f"job.yaml:2:1: {field}: is not supported by this version yet"
    )


def test_malformed_reference_has_a_place():
    """A malformed secret reference is found before anything is submitted."""
    line = error('job_command: x\nenv: {A: "${secret:local}"}')

    assert line.startswith("job.yaml:2:10: env.A: holds a malformed secret reference")


def test_values_and_control_characters_stay_out_of_errors():
    """No value shows, and a line stays one line."""
    value = "hunter2" * 3
    text = f"job_command: x\ntimeout: {value}\npriority: {value}\nsandbox: {{memory: {value}}}\n"
    lines = errors(text + f'"a\\nb\\e": {value}\n', "odd\nname.yaml")

    assert value not in str(lines)
    assert lines[-1] == "odd\\nname.yaml:5:1: a\\nb\\x1b: unknown field"


def test_tables_agree_with_the_model():
    """Every known spelling leads to a field of the model."""
    assert set(FIELDS) == set(JobFields.model_fields)
    assert set(OLDER.values()) <= {*FIELDS, *NOT_YET}
    assert not NOT_YET & {*FIELDS, *OLDER, *NESTED}


def test_package_import_is_cheap():
    """Importing the package itself loads neither pydantic nor the YAML parser."""
    code = (
        "import sys, daemon.jobfile; sys.exit(bool({'pydantic', 'ruamel.yaml'} & set(sys.modules)))"
    )

    assert subprocess.call([sys.executable, "-c", code]) == 0


def check_total(content: bytes, name: str) -> None:
    try:
        spec = load_job_file(content, name, BASE)
    except InvalidJobFileError as exc:
        for line in str(exc).splitlines():
            assert line.startswith(f"{name}:")
            assert line.isprintable()
            assert all(part.isdigit() for part in line.split(":")[1:3])
    else:
        spec.validate()


NAMES = st.sampled_from(["job.yaml", "job.json"])
WORDS = st.sampled_from(
    [*FIELDS, *OLDER, "job", "source", "kind", "min", "memory", "network", "pids", "type", "path"]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["none", "copy", "2GiB", "on", "/job/src", "x", "${secret:local:X}"]),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner),
    max_leaves=12,
)


@given(content=st.binary(max_size=80), name=NAMES)
@settings(max_examples=300, deadline=None)
def test_any_bytes(content, name):
    """Bytes are a job or an error with a place, nothing else."""
    check_total(content, name)


@given(
    content=st.lists(
        st.sampled_from([*"\n\t -?:[]{}&*!|>'\"%@`#,~<", "\n  ", "job_command", "env", "x", "0x"])
        | st.sampled_from(string.printable),
        max_size=40,
    ).map("".join),
    name=NAMES,
)
@settings(max_examples=600, deadline=None)
@example(content="? :", name="job.yaml")
@example(content="- ? -\n?", name="job.yaml")
def test_any_yaml_like_text(content, name):
    """Text full of the syntax of YAML is a job or an error with a place."""
    check_total(content.encode(), name)


@given(tree=st.dictionaries(WORDS, TREES, max_size=6), command=st.booleans(), name=NAMES)
@settings(max_examples=400, deadline=None)
def test_any_tree(tree, command, name):
    """Well-formed files with any content are a job or an error with a place."""
    document = {"job_command": "x", **tree} if command else tree
    check_total(json.dumps(document).encode(), name)


@given(cut=st.integers(0, len(FULL)), insert=st.sampled_from(string.printable + "é\0\ufeff"))
@settings(max_examples=300, deadline=None)
def test_any_edit_of_a_good_file(cut, insert):
    """A good file with one character too many is a job or an error with a place."""
    check_total((FULL[:cut] + insert + FULL[cut:]).encode(), "job.yaml")
    check_total((FULL[:cut] + insert).encode(), "job.yaml")


def test_suggestions_for_each_field():
    """A field with two letters swapped is suggested."""
    for field, (first, second) in itertools.product(FIELDS, [(1, 2)]):
        typo = field[:first] + field[second] + field[first] + field[second + 1 :]
        if typo != field:
            assert errors(f"{typo}: x")[0].endswith(f"did you mean '{field}'?")


@pytest.mark.parametrize(
    ("folder", "path", "found"),
    [
        ("/p/jobs", ".", "/p"),
        ("/p/jobs", "./", "/p"),
        ("/p/jobs", "app", "/p/jobs/app"),
        ("/p/jobs", "..", "/p/jobs/.."),
        ("/p/other", ".", "/p/other"),
    ],
)
def test_a_folder_of_job_files_is_no_source(folder: str, path: str, found: str) -> None:
    """In a folder called jobs, the folder that is meant by a dot is the project around it."""
    text = f"job_command: x\nsource_type: copy\nsource_path: {path}\n"

    assert load_job_file(text.encode(), "j.yaml", Path(folder)).source.path == found
