"""Hostile and malformed sources, and other input that a job file may hold: one clear error each, with its place."""

from __future__ import annotations

import json

import pytest

from tests.unit.daemon.jobfile.loading import error, errors, load

KEY = '"ref"'

URLS = {
    "": "git needs source_url",
    "repo": "is no URL",
    "/srv/repo": "is no URL",
    "./repo": "is no URL",
    "ext::sh -c touch% /tmp/x": "holds a space",
    "ext::sh%20-c%20x": "names a helper program of git",
    "fd::17/foo": "names a helper program of git",
    "transport::https://h/r": "names a helper program of git",
    "-uexec": "begins with '-'",
    "--upload-pack=touch /tmp/x": "begins with '-'",
    "ssh://-oProxyCommand=x/r": "names no host",
    "ssh://h/-r": "names no repository",
    "ssh://user@-oProxyCommand=x/r": "names no host",
    "-oProxyCommand=x@h:r": "begins with '-'",
    "u@-h:r": "is no URL",
    "u@h:-r": "is no URL",
    "git@h": "is no URL",
    "git://h/r": "has a scheme that is not supported",
    "ftp://h/r": "has a scheme that is not supported",
    "javascript://h/r": "has a scheme that is not supported",
    "git+ssh://h/r": "has a scheme that is not supported",
    "https://": "names no host",
    "https:///r": "names no host",
    "https://h": "names no repository",
    "https://h/": "names no repository",
    "https://h/r?x=1": "holds '?' or '#'",
    "https://h/r#main": "holds '?' or '#'",
    "https://user:secret@h/r": "holds a password",
    "https://user:@h/r": "holds a password",
    "https://user%3Asecret@h/r": "holds a password",
    "https://u\\ser@h/r": "holds a backslash",
    "https://h:99999/r": "is no URL",
    "https://h:x/r": "is no URL",
    "https://h/a b": "holds a space",
    "https://h%0a.evil/r": "control character",
    "https://h/r%0d%0ahost=evil": "control character",
    "https://h/r\nhost=evil": "control character",
    "https://h/r\u0000": "NUL byte",
    "https://h\u0085/r": "control character",
    "https://[::1/r": "is no URL",
    "https://h h/r": "holds a space",
    "https://ex\u00e4mple/r": "names no host",
    "file://": "names no file",
    "file:///": "names no file",
    "file://host/srv/r": "names no file",
    "file:relative": "is no URL",
    "https://h/" + "a" * 2001: "is longer than",
}

REFS = {
    "-b": "begins with '-'",
    "--upload-pack=x": "begins with '-'",
    "a b": "is not the name of",
    "a..b": "is not the name of",
    "main~1": "is not the name of",
    "main^": "is not the name of",
    "a:b": "is not the name of",
    "+main": None,
    "refs/heads/*": "is not the name of",
    "a?": "is not the name of",
    "a[b": "is not the name of",
    "a\\b": "is not the name of",
    "@": "is not the name of",
    "a@{1}": "is not the name of",
    "HEAD": "is not the name of",
    "/a": "is not the name of",
    "a/": "is not the name of",
    "a//b": "is not the name of",
    ".a": "is not the name of",
    "a/.b": "is not the name of",
    "a/-b": "is not the name of",
    "a.": "is not the name of",
    "a.lock": "is not the name of",
    "a.lock/b": "is not the name of",
    "a\u007f": "is not the name of",
    "a\nb": "is not the name of",
    "a\u0000": "NUL byte",
    "a" * 251: "is longer than",
}


@pytest.mark.parametrize("prefix", ["source", "ci_source"])
@pytest.mark.parametrize("url", URLS)
def test_a_url_that_no_job_may_name(url: str, prefix: str) -> None:
    """One line with the place of the URL, or of the type that needs one, and nothing of the URL in it."""
    job = {"job_command": "x", f"{prefix}_type": "git", f"{prefix}_url": url}
    line = error(json.dumps(job, indent=1), "job.json")
    place = f"4:{10 + len(prefix)}: {prefix}_url: "
    if not url:
        place = f"3:{11 + len(prefix)}: {prefix}_type: "
    assert line.startswith(f"job.json:{place}"), line
    assert URLS[url].replace("source_url", f"{prefix}_url") in line
    assert "secret" not in line


@pytest.mark.parametrize("ref", REFS)
def test_a_ref_that_is_none(ref: str) -> None:
    """Nothing that git would read as an option, a range or a pattern."""
    job = {"job_command": "x", "source": {"type": "git", "url": "https://h/r", "ref": ref}}
    text = json.dumps(job)
    problem = REFS[ref]
    if problem is None:
        assert load(text, "job.json").source.ref == ref
        return
    line = error(text, "job.json")
    assert line.startswith(f"job.json:1:{text.index(KEY) + 8}: source.ref: "), line
    assert problem in line


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/org/repo.git",
        "https://user@example.com:8443/r",
        "https://[::1]:8443/r",
        "https://h/a%20b",
        "http://127.0.0.1:80/r",
        "ssh://git@example.com:2222/~/r",
        "git@github.com:org/repo.git",
        "git@h:a/b:c",
        "file:///srv/a b/repo",
        "file://localhost/srv/repo",
    ],
)
def test_a_url_that_a_job_may_name(url: str) -> None:
    """What people write."""
    assert load(f"job_command: x\nsource: {{type: git, url: '{url}'}}").source.url == url


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("url: https://h/r, credentials: plain", "source.credentials: must hold a secret reference"),
        ("url: https://h/r, credentials: '${secret:a}'", "source.credentials: holds a malformed secret reference"),
        ("url: https://h/r, credentials: '$${secret:a:B}'", "source.credentials: must hold a secret reference"),
        ("url: http://h/r, credentials: '${secret:a:B}'", "source.credentials: would travel in the clear"),
        ("url: http://127.0.0.1.evil/r, credentials: '${secret:a:B}'", "source.credentials: would travel in the clear"),
        ("url: file:///r, credentials: '${secret:a:B}'", "source.credentials: are for a repository of another host"),
        ("url: 'https://h/${secret:a:B}'", "source.url: holds a secret reference"),
        ("url: https://h/r, ref: '${secret:a:B}'", "source.ref: is not the name of"),
        ("url: https://h/r, depth: 0.5", "source.depth: must be a whole number"),
        ("url: https://h/r, depth: -1", "source.depth: must lie between"),
        ("url: https://h/r, depth: 1e9", "source.depth: must be a whole number"),
        ("url: https://h/r, depth: 1000001", "source.depth: must lie between"),
        ("url: https://h/r, submodules: recursive", "source.submodules: must be true or false"),
        ("url: https://h/r, lfs: maybe", "source.lfs: must be one of auto, on, off"),
        ("url: https://h/r, path: x", "source.path: needs source_type: copy"),
        ("url: https://h/r, branch: x", "source.branch: unknown field"),
        ("url: [https://h/r]", "source.url: must be text"),
        ("url: 5", "source.url: must be text; put it in quotes"),
        ("url: ", "source.url: has no value; give it one or remove it"),
    ],
)  # fmt: skip
def test_a_git_source_with_a_fault(fields: str, expected: str) -> None:
    """Each field is checked, and each has its place."""
    (line,) = errors(f"job_command: x\nsource: {{type: git, {fields}}}\n")
    assert line.startswith("job.yaml:2:"), line
    assert expected in line


@pytest.mark.parametrize(
    "text",
    [
        "job_command: &a [x, *a]",
        "a: &a [1]\nb: &b [*a, *a]\nc: &c [*b, *b]",
        "job_command: x\n<<: {name: y}",
        "job_command: x\n? {a: b}\n: c",
        "job_command: !!python/object/apply:os.system ['touch /tmp/x']",
        "job_command: !include /etc/passwd",
        "%TAG ! tag:x,2000:\n---\njob_command: x",
        "job_command: x\n...\njob_command: y",
        "job_command: x\njob_command: y",
        '{"job_command": "x", "job_command": "y"}',
        "job_command: x\nenv: {'': b}",
        "job_command: x\nenv: {'A=B': c}",
        "job_command: x\nenv: {A: ${secret:a:B}}",
        "job_command: ${secret:a:B}",
        "job_command: x\nname: '${secret:a:B}'",
        "job_command: x\nlabels: {a: '${secret:a:B}'}",
        "job_command: x\ncode_dir: /job/../etc",
        "job_command: x\ncode_dir: /job/src/../../../etc",
        "job_command: x\njob_dir: ../etc",
        "job_command: x\nname: ''",
        "job_command: []",
        "job_command: ['']",
        "job_command: x\nsource: {type: copy, path: '${secret:a:B}'}",
        "job_command: x\nsource_type: svn",
        "{" * 50,
        "job_command: |\n" + "\tx\n" * 3,
        "job_command: x\u2028\n\x0b",
    ],
)
def test_a_hostile_file(text: str) -> None:
    """None is a job, none is slow, and each problem is one line with a place."""
    lines = errors(text)
    assert 0 < len(lines) <= 10
    for line in lines:
        name, row, column, rest = line.split(":", 3)
        assert (name, row.isdecimal(), column.isdecimal()) == ("job.yaml", True, True), line
        assert rest.strip()
