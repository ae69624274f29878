"""`runner secrets init|set|get|delete|list|list-paths` without a terminal: values, exit codes, and what is never shown."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.instance import RUNNER
from tests.e2e.secrets_home import NO_PASSWORD, PASSWORD, VARIABLE, SecretsHome, pipe_with

VALUE = "canary-Zq7Zq7Zq7"
PEM = (
    b"-----BEGIN OPENSSH PRIVATE KEY-----\n"
    + b"b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n" * 5
    + b"-----END OPENSSH PRIVATE KEY-----\n"
)


def test_a_round(home: SecretsHome) -> None:
    """Init, set, get, list, delete as a person does them."""
    home.secrets("init", "--kdf-cost", "15")
    assert b"npm/tokens:NPM_TOKEN: stored, 16 bytes" in (
        home.secrets("set", "npm/tokens", "NPM_TOKEN", "--stdin", stdin=VALUE.encode()).stderr
    )
    assert home.secrets("get", "npm/tokens", "NPM_TOKEN").stdout == VALUE.encode()
    assert home.secrets("list", "npm/tokens").stdout == b"NPM_TOKEN\n"
    assert json.loads(home.secrets("list-paths", "--json").stdout) == ["npm/tokens"]
    home.secrets("delete", "npm/tokens", "NPM_TOKEN")
    assert home.secrets("list-paths").stdout == b""
    assert home.files_with(VALUE.encode()) == []


@pytest.mark.case("init-twice")
def test_init_twice(home: SecretsHome) -> None:
    """It says what to do instead, and changes nothing."""
    home.make(A="1", B="2", C="3")
    before = home.file.read_bytes()
    line = home.error("init", code=2)
    assert "exists" in line
    assert "passwd" in line
    assert "init --force" in line
    assert home.file.read_bytes() == before


@pytest.mark.case("init-force-keeps-backup", "init-force-no-tty-no-yes")
def test_init_by_force(home: SecretsHome) -> None:
    """It wants a yes, and keeps the old file beside the new one."""
    home.make(A="1")
    before = home.file.read_bytes()
    assert "--yes" in home.error("init", "--force", code=2)
    assert home.file.read_bytes() == before

    home.secrets("init", "--force", "--yes")
    (backup,) = home.file.parent.glob("secrets.json.bak-*")
    assert backup.read_bytes() == before
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert home.open().names() == []
    old, new = (json.loads(path.read_bytes())["kdf"] for path in (backup, home.file))
    assert old["salt"] != new["salt"]


@pytest.mark.case("init-short-password", "init-empty-password")
def test_init_wants_a_password_of_eight_characters(home: SecretsHome) -> None:
    """Or the word that a shorter one is meant; an empty variable is none at all."""
    line = home.error("init", code=2, env={VARIABLE: "abcQ"})
    assert "abcQ" not in line
    assert not home.file.exists()
    home.error("init", code=8, env=NO_PASSWORD)
    assert not home.file.exists()
    home.secrets("init", "--allow-weak-password", env={VARIABLE: "abcQ"})


@pytest.mark.case("init-password-unicode")
def test_a_password_in_either_normal_form(home: SecretsHome) -> None:
    """Made with one, opened with the other."""
    home.secrets("init", env={VARIABLE: "pa\u0308ss-wo\u0308rd"})
    home.secrets("list-paths", env={VARIABLE: "p\u00e4ss-w\u00f6rd"})


@pytest.mark.case("init-umask-000")
def test_modes_under_an_open_umask(home: SecretsHome) -> None:
    """Private all the same."""
    command = f"umask 000; exec {RUNNER} secrets init"
    subprocess.run(["/bin/sh", "-c", command], env=home.env, check=True, capture_output=True)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.file.parent.iterdir()}
    assert modes == {".lock": 0o600, "secrets.json": 0o600}
    assert stat.S_IMODE(home.file.parent.stat().st_mode) == 0o700


@pytest.mark.case("init-home-missing")
def test_no_home(home: SecretsHome, tmp_path: Path) -> None:
    """Without HOME and XDG_CONFIG_HOME nothing is written anywhere."""
    before = sorted(tmp_path.rglob("*"))
    line = home.error("init", code=2, env={"HOME": "<unset>"})
    assert "HOME" in line
    assert sorted(tmp_path.rglob("*")) == before


def test_xdg_config_home(home: SecretsHome, tmp_path: Path) -> None:
    """The store lies below it."""
    home.secrets("init", env={"XDG_CONFIG_HOME": str(tmp_path / "xdg")})
    assert (tmp_path / "xdg" / "runner" / "secrets" / "secrets.json").exists()


STDIN = {
    "LF": (b"v-1\n", (), b"v-1"),
    "CRLF": (b"v-1\r\n", (), b"v-1"),
    "NONE": (b"v-1", (), b"v-1"),
    "TWO": (b"v-1\n\n", (), b"v-1\n"),
    "RAW": (b"v-1\n", ("--raw",), b"v-1\n"),
    "SPACE": (b" v-1 \r", (), b" v-1 \r"),
    "PEM": (PEM, (), PEM[:-1]),
    "PEM_RAW": (PEM, ("--raw",), PEM),
    "BYTES": (bytes(range(256)), (), bytes(range(256))),
    "NO_TEXT": (b"\xff\n", (), b"\xff"),
    "EMPTY": (b"", ("--allow-empty",), b""),
    "LINE_END": (b"\n", ("--allow-empty",), b""),
}


@pytest.mark.case(
    "set-stdin-one-newline",
    "set-stdin-two-newlines",
    "set-stdin-multi-line-pem",
    "set-stdin-binary",
    "get-empty-stored-value",
)
def test_set_from_stdin(home: SecretsHome) -> None:
    """Every byte but one line end; `get` gives the same bytes back."""
    home.make()
    for key, (given, options, _) in STDIN.items():
        home.secrets("set", "a", key, "--stdin", *options, stdin=given)
    stored = {name.key: one.reveal() for name, one in home.open().read_all().items()}
    assert stored == {key: value for key, (_, _, value) in STDIN.items()}
    for key in ("TWO", "BYTES", "EMPTY"):
        assert home.secrets("get", "a", key).stdout == stored[key]
    assert home.secrets("get", "a", "PEM", "--raw").stdout == PEM[:-1]


def test_set_from_a_file(home: SecretsHome, tmp_path: Path) -> None:
    """Also from a descriptor, as a shell names it."""
    home.make()
    (tmp_path / "key.pem").write_bytes(PEM)
    home.secrets("set", "a", "KEY", "--file", str(tmp_path / "key.pem"))
    fd = pipe_with(b"from-a-pipe\n")
    home.secrets("set", "a", "PIPE", "--file", f"/dev/fd/{fd}", pass_fds=(fd,))
    os.close(fd)
    assert home.value("KEY") == PEM[:-1]
    assert home.value("PIPE") == b"from-a-pipe"
    assert "No such file" in home.error("set", "a", "KEY", "--file", "/nope", code=2)
    assert "not both" in home.error("set", "a", "KEY", "--file", "/nope", "--stdin", code=2)


@pytest.mark.case("set-stdin-empty")
def test_an_empty_value_is_refused(home: SecretsHome) -> None:
    """Unless that is said."""
    home.make()
    assert "empty value" in home.error("set", "a", "KEY", "--stdin", code=2)
    assert home.open().names() == []


@pytest.mark.case("set-stdin-and-password-from-same-pipe", "set-stdin-piped-without-flag")
def test_a_piped_value_is_never_taken_for_a_password(home: SecretsHome) -> None:
    """Without a source of the password it is 8, without --stdin it is 2; nobody is asked."""
    home.make()
    line = home.error("set", "a", "KEY", code=8, stdin=b"v-1\npw\n", env=NO_PASSWORD)
    for source in ("RUNNER_SECRETS_PASSWORD", "--password-file", "--password-fd"):
        assert source in line
    home.error("set", "a", "KEY", "--stdin", code=8, stdin=b"v\n", env=NO_PASSWORD)
    assert "--stdin" in home.error("set", "a", "KEY", code=2, stdin=b"v-1\n")
    assert "--file" in home.error("set", "a", "KEY", "--stdin", "--password-fd", "0", code=2)


@pytest.mark.parametrize(
    "args",
    [
        (VALUE,),
        (VALUE, "more"),
        ("--value", VALUE),
        (f"--value={VALUE}",),
        ("--", VALUE),
        (f"-{VALUE}",),
        (f"-----{VALUE}",),
    ],
)
@pytest.mark.case("set-value-on-argv")
def test_a_value_on_the_command_line_is_refused(home: SecretsHome, args: tuple[str, ...]) -> None:
    """And not repeated."""
    home.make()
    for command in (("set", "a", "KEY"), ("get", "a", "KEY"), ("init",), ("passwd",)):
        line = home.error(*command, *args, code=2)
        assert VALUE not in line
        assert "not accepted as an argument" in line


def test_a_value_in_the_place_of_a_number_is_not_repeated(home: SecretsHome) -> None:
    """Neither by click nor by us."""
    home.make()
    assert VALUE not in home.error("get", "a", "KEY", "--password-fd", VALUE, code=2)
    assert VALUE not in home.error("init", "--kdf-cost", VALUE, code=2)
    assert "'KEY'" in home.error("get", "a", code=2)


@pytest.mark.case("lock-held")
def test_a_held_lock_is_busy(home: SecretsHome) -> None:
    """After ten seconds, with the number of the process that holds it; readers do not mind."""
    home.make(KEY=VALUE)
    with open(home.file.parent / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert home.secrets("get", "a", "KEY").stdout == VALUE.encode()
        begin = time.monotonic()
        line = home.error("set", "a", "KEY", "--stdin", code=7, stdin=b"v-1")
        assert time.monotonic() - begin >= 10
    assert f"process {os.getpid()}" in line


@pytest.mark.case("set-path-traversal", "set-unicode-key-refused")
def test_malformed_names_are_refused(home: SecretsHome) -> None:
    """Before any password is needed, and not repeated."""
    for path in ("../../etc/passwd", "a//b", "/abs", "a/", ".", VALUE + "!", ""):
        line = home.error("set", path, "KEY", "--stdin", code=2, env=NO_PASSWORD)
        assert VALUE not in line
    home.error("set", "a", "\u041aEY", "--stdin", code=2)
    home.error("get", "a", "K:Y", code=2)
    home.error("list", "../a", code=2)


@pytest.mark.case("set-value-over-env-limit")
def test_a_value_that_no_variable_can_hold_is_warned_of(home: SecretsHome) -> None:
    """It is stored, and said by name."""
    home.make()
    big = home.secrets("set", "a", "KEY", "--stdin", stdin=b"x7" * 100_000)
    assert b"a:KEY cannot be an environment variable" in big.stderr
    nul = home.secrets("set", "a", "NUL", "--stdin", stdin=b"secret\0value")
    assert b"a:NUL holds a NUL byte" in nul.stderr
    short = home.secrets("set", "a", "PIN", "--stdin", stdin=b"abc")
    assert b"warning: a:PIN" in short.stderr
    assert b"abc" not in short.stderr
    assert "longer than" in home.error("set", "a", "KEY", "--stdin", code=2, stdin=b"x" * (2 << 20))


@pytest.mark.case("set-overwrite", "set-identical")
def test_what_became_of_a_value_is_said(home: SecretsHome) -> None:
    """Stored, replaced, unchanged; or refused."""
    home.make(KEY="old-value")
    generation = home.open().generation()
    assert b"replaced" in home.secrets("set", "a", "KEY", "--stdin", stdin=b"new-value").stderr
    before = home.file.read_bytes()
    assert b"unchanged" in home.secrets("set", "a", "KEY", "--stdin", stdin=b"new-value").stderr
    line = home.error("set", "a", "KEY", "--stdin", "--no-clobber", code=2, stdin=b"other-value")
    assert "a:KEY" in line
    assert home.file.read_bytes() == before
    assert home.open().generation() == generation + 1


@pytest.mark.case("set-wrong-password", "pw-three-tries")
def test_a_wrong_password_from_the_environment(home: SecretsHome) -> None:
    """It is not tried again, and the value is in no error."""
    home.make()
    before = home.file.read_bytes()
    line = home.error(
        "set",
        "a",
        "KEY",
        "--stdin",
        code=4,
        stdin=VALUE.encode(),
        env={VARIABLE: "wrong-Pw"},
    )
    assert f"wrong password for {home.file}" in line
    assert VALUE not in line
    assert "wrong-Pw" not in line
    assert home.file.read_bytes() == before


@pytest.mark.case("set-without-init")
def test_no_store_is_made_by_the_way(home: SecretsHome) -> None:
    """Not under whatever password there is."""
    for command in (
        ("set", "a", "KEY", "--stdin"),
        ("get", "a", "KEY"),
        ("list-paths",),
        ("passwd",),
    ):
        line = home.error(*command, code=5, stdin=b"v-1")
        assert "runner secrets init" in line
    assert not home.file.parent.exists()


@pytest.mark.case("get-missing-key", "list-missing-path", "delete-missing", "delete-existing")
def test_what_is_not_there(home: SecretsHome) -> None:
    """Exit 3, with the name that was asked for and no other."""
    home.make(SECRET_ONE="1")
    before = home.file.read_bytes()
    assert "SECRET_ONE" not in home.error("get", "a", "NOPE", code=3)
    assert "a:NOPE" in home.error("delete", "a", "NOPE", code=3)
    assert "nope" in home.error("list", "nope", code=3)
    assert home.file.read_bytes() == before
    home.secrets("delete", "a", "SECRET_ONE")
    home.error("list", "a", code=3)


@pytest.mark.case("get-stdout-closed", "pw-stdin-closed")
def test_closed_streams(home: SecretsHome) -> None:
    """A closed output is a lost value; a closed input asks nobody."""
    home.make(KEY=VALUE)

    def shell(command: str, **env: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["/bin/sh", "-c", f"exec {RUNNER} secrets get a KEY {command}"],
            env={**home.env, **env},
            capture_output=True,
            check=False,
            start_new_session=True,
        )

    done = shell(">&-")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert VALUE.encode() not in done.stderr
    done = shell("<&-", RUNNER_SECRETS_PASSWORD="")
    assert (done.returncode, done.stdout) == (8, b"")
    assert shell("| head -c 0").returncode == 0


@pytest.mark.case("get-verbose-debug")
def test_nothing_is_logged(home: SecretsHome) -> None:
    """However much is asked for."""
    home.make(KEY=VALUE)
    done = home.secrets("get", "a", "KEY", env={"RUNNER_LOG": "debug", "RUNNER_DEBUG": "1"})
    assert done.stdout == VALUE.encode()
    assert VALUE.encode() not in done.stderr
    line = home.run("-vvv", "secrets", "get", "a", "KEY")
    assert line.returncode == 2
    assert PASSWORD.encode() not in line.stderr


@pytest.mark.case("concurrent-set-24")
def test_24_sets_at_once_lose_nothing(home: SecretsHome) -> None:
    """As many processes of the command itself."""
    home.make()
    generation = home.open().generation()
    children = [
        subprocess.Popen(
            [RUNNER, "secrets", "set", "a", f"K{number}", "--stdin"],
            env=home.env,
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for number in range(24)
    ]
    for number, child in enumerate(children):
        child.communicate(f"value-{number}".encode(), timeout=120)
        assert child.returncode == 0
    store = home.open()
    assert {name.key for name in store.names()} == {f"K{number}" for number in range(24)}
    assert store.generation() == generation + 24
    assert sorted(path.name for path in home.file.parent.iterdir()) == [".lock", "secrets.json"]
