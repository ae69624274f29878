"""Where `runner secrets` finds the password: descriptors, files, the environment, the keyring, and what it does without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.instance import Instance
from tests.e2e.secrets_home import NO_PASSWORD, PASSWORD, VARIABLE, SecretsHome, pipe_with
from tests.waiting import wait_until

VALUE = "canary-Zq7Zq7Zq7"


@pytest.fixture
def bare(home: SecretsHome) -> SecretsHome:
    """A home with a store whose password is nowhere."""
    home.extra_env[VARIABLE] = ""
    home.make(KEY=VALUE)
    return home


@pytest.mark.case("pw-fd")
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_descriptor(bare: SecretsHome, end: bytes) -> None:
    """One line end is not part of the password."""
    fd = pipe_with(PASSWORD.encode() + end)
    done = bare.secrets("get", "a", "KEY", "--password-fd", str(fd), pass_fds=(fd,))
    os.close(fd)
    assert done.stdout == VALUE.encode()


@pytest.mark.case("pw-fd")
def test_descriptors_that_hold_no_password(bare: SecretsHome) -> None:
    """A wrong usage, not a wrong password."""
    assert "Bad file descriptor" in bare.error("get", "a", "KEY", "--password-fd", "77", code=2)
    assert "--password-fd" in bare.error("get", "a", "KEY", "--password-fd", "-1", code=2)
    bare.error("get", "a", "KEY", "--password-fd", "99999999999999999999", code=2)
    bare.error("get", "a", "KEY", "--password-fd", "1", code=2)
    assert "holds no password" in bare.error("get", "a", "KEY", "--password-fd", "0", code=2)
    line = bare.error("get", "a", "KEY", "--password-fd", "0", code=2, stdin=b"\xff\xfe\n")
    assert "not valid UTF-8" in line
    assert "both" in bare.error(
        "get", "a", "KEY", "--password-fd", "0", "--password-file", "x", code=2
    )


def test_a_file(bare: SecretsHome, tmp_path: Path) -> None:
    """It counts before the environment; others who can read it are warned of."""
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    file.chmod(0o600)
    args = ("get", "a", "KEY", "--password-file", str(file))
    assert bare.secrets(*args, env={VARIABLE: "wrong-one"}).stderr == b""
    file.chmod(0o644)
    assert b"can be read by others" in bare.secrets(*args).stderr
    assert "No such file" in bare.error("get", "a", "KEY", "--password-file", "/nope", code=2)


def test_no_source(bare: SecretsHome) -> None:
    """Exit 8, with the sources there are."""
    assert VARIABLE in bare.error("list-paths", code=8)
    assert VARIABLE in bare.error("list-paths", "--no-input", code=8)
    assert "new password" in bare.error("passwd", code=8, env={VARIABLE: PASSWORD})


def test_other_processes_do_not_get_the_password(bare: SecretsHome) -> None:
    """The keyring's process has neither the variable nor a descriptor of ours."""
    bare.with_secret_service("locked")
    asked = bare.root / "asked"
    reading = pipe_with(b"")
    with subprocess.Popen(
        [str(Path(sys.executable).with_name("runner")), "secrets", "list-paths", "--keyring"],
        env={**bare.env, "RUNNER_SECRETS_OTHER": "canary-variable"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(reading,),
    ) as command:
        os.close(reading)
        child = int(wait_until(lambda: asked.exists() and asked.read_text(), 20))
        if os.geteuid() == 0:
            assert b"canary-variable" not in Path(f"/proc/{child}/environ").read_bytes()
        assert sorted(os.listdir(f"/proc/{child}/fd"))[:3] == ["0", "1", "2"]
        assert not os.path.exists(f"/proc/{child}/fd/{reading}")
        assert command.stderr
        command.stderr.read()
    assert not psutil.pid_exists(child)


class TestKeyring:
    """By choice only, in a process of its own, and never in the way of the next source."""

    def test_a_password_is_kept_and_found(self, home: SecretsHome) -> None:
        """`init` puts it there, the others take it from there, `passwd` changes it there."""
        kept = home.with_secret_service()
        home.secrets("init", "--kdf-cost", "15", "--keyring")
        assert PASSWORD in json.loads(kept.read_text()).values()
        home.error("list-paths", code=8, env=NO_PASSWORD)
        home.secrets("list-paths", "--keyring", env=NO_PASSWORD)
        home.secrets("list-paths", env=NO_PASSWORD | {"RUNNER_SECRETS_KEYRING": "true"})
        (home.home / ".config" / "runner" / "config.toml").write_text("[secrets]\nkeyring = true\n")
        home.secrets("list-paths", env=NO_PASSWORD)
        home.error("list-paths", "--no-keyring", code=8, env=NO_PASSWORD)

        (home.root / "new").write_text("another-horse-5")
        home.secrets("passwd", "--kdf-cost", "15", "--new-password-file", str(home.root / "new"))
        home.secrets("list-paths", env=NO_PASSWORD)
        assert list(json.loads(kept.read_text()).values()) == ["another-horse-5"]

    def test_a_stale_password_is_no_end(self, bare: SecretsHome) -> None:
        """What the keyring has is not what opens it: the next source."""
        kept = bare.with_secret_service()
        bare.secrets(
            "init", "--force", "--yes", "--keyring", "--kdf-cost", "15", env={VARIABLE: "old-one-9"}
        )
        bare.secrets("init", "--force", "--yes", "--kdf-cost", "15", env={VARIABLE: PASSWORD})
        assert kept.exists()
        done = bare.secrets("list-paths", "--keyring", code=8)
        assert b"does not open the store" in done.stderr

    @pytest.mark.case("keyring-hangs")
    def test_a_locked_keyring_gets_five_seconds(self, bare: SecretsHome) -> None:
        """Its process is ended, and the next source is taken."""
        bare.with_secret_service("locked")
        begin = time.monotonic()
        done = bare.secrets("list-paths", "--keyring", code=8)
        assert 4 < time.monotonic() - begin < 30
        assert b"does not answer within 5 s" in done.stderr
        assert len(done.stderr.splitlines()) == 2
        assert not psutil.pid_exists(int((bare.root / "asked").read_text()))

    @pytest.mark.parametrize(
        ("variables", "word"),
        [
            ({"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}, "this host has none"),
            ({"PYTHON_KEYRING_BACKEND": "nope.Keyring"}, "does not exist"),
            ({"FAKE_SECRET_SERVICE_MODE": "locked"}, "does not answer within 5 s"),
        ],
    )
    @pytest.mark.case(
        "keyring-no-backend",
        "keyring-bad-backend-env",
        "keyring-hangs",
        "prompt-noninteractive-flag",
    )
    def test_a_start_goes_on_without_it(
        self, home: SecretsHome, variables: dict[str, str], word: str
    ) -> None:
        """One notice however many secrets are looked for; then the next source, of which there is none here."""
        home.with_secret_service()
        home.extra_env |= variables
        done = home.run(
            "local", "start", "--no-input", "--secret", "ONE_KEY", "--secret", "TWO_KEY"
        )
        assert done.returncode == 8
        assert done.stderr.count(word.encode()) == 1
        assert b"ONE_KEY, TWO_KEY" in done.stderr
        assert not (home.state / "daemon.pid").exists()

    @pytest.mark.case("keyring-in-daemon")
    def test_the_daemon_does_not_load_it(self, instance: Instance) -> None:
        """A value of the keyring comes from the command; the library runs in a process that has ended."""
        home = SecretsHome(instance.root, instance.extra_env)
        kept = home.with_secret_service()
        kept.write_text(json.dumps({"runner/KEPT_KEY": VALUE}))
        modules = home.root / "modules"
        service = (modules / "secretstorage.py").read_text()
        loaded = f"open({str(home.root / 'loaded')!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
        (modules / "secretstorage.py").write_text(service + loaded)
        assert "keyring" in instance.start("--secret", "KEPT_KEY")
        path = instance.job_file(
            "job_command: 'echo ${#K} $K'\nenv: {K: '${secret:local:KEPT_KEY}'}\n"
        )
        assert instance.ok("jobs", "submit", "--file", path, "--follow") == "16 ***\n"
        pids = {int(line) for line in (home.root / "loaded").read_text().split()}
        assert pids
        assert not pids & set(instance.pids())

    @pytest.mark.parametrize(
        ("backend", "word"),
        [
            ("keyring.backends.fail.Keyring", "this host has none"),
            ("keyring.backends.null.Keyring", "this host has none"),
            ("nope.Keyring", "does not exist"),
            ("clear.Keyring", "clear is refused"),
            ("keyring.backends.chainer.ChainerBackend", "is refused"),
        ],
    )
    @pytest.mark.case("keyring-no-backend", "keyring-bad-backend-env")
    def test_backends_that_keep_nothing_or_keep_it_in_clear(
        self, home: SecretsHome, backend: str, word: str
    ) -> None:
        """One notice; the value goes nowhere, also through a chain of backends."""
        home.with_secret_service()
        modules = home.root / "modules"
        (modules / "clear.py").write_text(CLEAR)
        (modules / "secretstorage.py").unlink()
        packages = modules / "clear-1.0.dist-info"
        packages.mkdir()
        (packages / "METADATA").write_text("Metadata-Version: 2.1\nName: clear\nVersion: 1.0\n")
        (packages / "entry_points.txt").write_text("[keyring.backends]\nclear = clear\n")
        home.extra_env |= {
            "PYTHON_KEYRING_BACKEND": backend,
            "CLEAR_FILE": str(home.root / "clear"),
        }
        done = home.secrets("init", "--kdf-cost", "15", "--keyring")
        assert word.encode() in done.stderr
        assert len(done.stderr.splitlines()) == 2
        assert not (home.root / "clear").exists()
        assert PASSWORD.encode() not in done.stderr

    @pytest.mark.parametrize("mode", ["forgetful", "broken"])
    def test_a_backend_that_did_not_keep_it_is_found_out(
        self, home: SecretsHome, mode: str
    ) -> None:
        """By reading back; the error of a backend is not repeated, because it may hold the value."""
        kept = home.with_secret_service(mode)
        done = home.secrets("init", "--kdf-cost", "15", "--keyring")
        assert b"was not kept" in done.stderr
        assert b"is kept by" not in done.stderr
        assert not kept.exists()

    @pytest.mark.case("keyring-not-installed")
    def test_without_the_package(self, bare: SecretsHome) -> None:
        """Everything else works."""
        modules = bare.root / "modules"
        modules.mkdir()
        (modules / "keyring.py").write_text("raise ModuleNotFoundError(name='keyring')")
        bare.extra_env["PYTHONPATH"] = str(modules)
        done = bare.secrets("list-paths", "--keyring", code=8)
        assert b"keyring: not installed" in done.stderr
        bare.secrets("list-paths", "--keyring", env={VARIABLE: PASSWORD})

    def test_a_configured_path_runs_no_code_in_our_process(self, bare: SecretsHome) -> None:
        """What keyringrc.cfg names is loaded in a process that holds no secret."""
        planted = bare.root / "planted"
        planted.mkdir()
        (planted / "evil.py").write_text(
            f"import os\nopen({str(bare.root / 'ran')!r}, 'a').write(str(os.getpid()))\n"
        )
        config = bare.home / ".config" / "python_keyring"
        config.mkdir(parents=True)
        (config / "keyringrc.cfg").write_text(
            f"[backend]\ndefault-keyring=evil.Keyring\nkeyring-path={planted}\n"
        )
        with subprocess.Popen(
            [str(Path(sys.executable).with_name("runner")), "secrets", "list-paths", "--keyring"],
            env=bare.env,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as command:
            _, error = command.communicate(timeout=60)
        assert command.returncode == 8
        assert b"keyring: " in error
        assert (bare.root / "ran").read_text() != str(command.pid)


CLEAR = """
import os
from keyring.backend import KeyringBackend
class Keyring(KeyringBackend):
    priority = 20
    def get_password(self, service, username): return None
    def set_password(self, service, username, password): open(os.environ["CLEAR_FILE"], "w").write(password)
class Second(Keyring):
    priority = 19
"""
