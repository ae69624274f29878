"""A home with a secret store in it, for `runner secrets` as a person runs it; the keyring's service is a stand-in."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from daemon.secrets.store.names import SecretName, parse_name
from daemon.secrets.store.secret_store import SecretStore
from daemon.secrets.store.store_folder import StoreFolder
from daemon.secrets.values import SecretValue
from tests.e2e.instance import RUNNER, Instance

PASSWORD = "correct-horse-4"
VARIABLE = "RUNNER_SECRETS_PASSWORD"
NO_PASSWORD = {VARIABLE: ""}

# What keyring's SecretService backend calls of the library that talks to D-Bus; it keeps its values in a file.
SECRET_SERVICE = """
import json, os, time
from pathlib import Path
from types import SimpleNamespace
__version_tuple__ = (3, 5)
exceptions = None
FILE = Path(os.environ["FAKE_SECRET_SERVICE"])
MODE = os.environ.get("FAKE_SECRET_SERVICE_MODE", "")

class Item:
    def __init__(self, secret): self.secret = secret
    def is_locked(self): return False
    def unlock(self): pass
    def get_secret(self): return self.secret.encode()

class Collection:
    connection = SimpleNamespace(close=lambda: None)
    def is_locked(self): return MODE == "locked"
    def unlock(self):
        if MODE == "locked":
            (FILE.parent / "asked").write_text(str(os.getpid()))
            time.sleep(3600)
    def search_items(self, attributes):
        kept = json.loads(FILE.read_text()) if FILE.exists() else {}
        secret = kept.get(attributes["service"] + "/" + attributes["username"])
        return [Item(secret)] if secret is not None else []
    def create_item(self, label, attributes, secret, replace):
        if MODE == "broken": raise RuntimeError("cannot keep " + secret)
        kept = json.loads(FILE.read_text()) if FILE.exists() else {}
        kept[attributes["service"] + "/" + attributes["username"]] = secret
        if MODE != "forgetful": FILE.write_text(json.dumps(kept))

def dbus_init(): return Collection.connection
def check_service_availability(connection): return True
def get_default_collection(connection): return Collection()
"""


@dataclass
class SecretsHome(Instance):
    """One home. Its password is in the environment unless a test takes it away."""

    @property
    def env(self) -> dict[str, str]:
        env = {**super().env, VARIABLE: PASSWORD, **self.extra_env}
        return {name: value for name, value in env.items() if value != "<unset>"}

    @property
    def folder(self) -> StoreFolder:
        return StoreFolder(self.home / ".config" / "runner" / "secrets")

    @property
    def file(self) -> Path:
        return self.folder.file

    def make(self, *, cost: int = 14, **values: bytes | str) -> None:
        """Make a store with values at the path ``a``, cheaper to open than one that `init` makes."""
        store = SecretStore.create(self.folder, SecretValue(PASSWORD), cost=cost)
        store.put(
            {
                parse_name("a", key): value if isinstance(value, bytes) else value.encode()
                for key, value in values.items()
            }
        )

    def open(self, password: str = PASSWORD) -> SecretStore:
        return SecretStore.open(self.folder, SecretValue(password))

    def value(self, key: str, path: str = "a") -> bytes:
        return self.open().get(SecretName(path, key)).reveal()

    def secrets(
        self,
        *args: str,
        stdin: bytes = b"",
        code: int = 0,
        pass_fds: tuple[int, ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `runner secrets` without a terminal; it must end with a code, and with one line if that is an error."""
        done = subprocess.run(
            [RUNNER, "secrets", *args],
            env={
                name: value
                for name, value in {**self.env, **(env or {})}.items()
                if value != "<unset>"
            },
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        assert done.returncode == code, f"exit {done.returncode}: {done.stderr.decode()}"
        assert b"Traceback" not in done.stderr
        assert PASSWORD.encode() not in done.stderr
        if code:
            assert done.stderr.splitlines()[-1].startswith(b"runner: ")
        return done

    def error(
        self, *args: str, code: int, stdin: bytes = b"", env: Mapping[str, str] | None = None
    ) -> str:
        """Run a command that must fail without a word on standard output; return its line."""
        done = self.secrets(*args, code=code, stdin=stdin, env=env)
        assert done.stdout == b""
        return done.stderr.decode().splitlines()[-1]

    def with_secret_service(self, mode: str = "") -> Path:
        """Give the keyring a service; return the file in which that keeps its values."""
        modules = self.root / "modules"
        modules.mkdir(exist_ok=True)
        (modules / "secretstorage.py").write_text(SECRET_SERVICE)
        kept = self.root / "kept.json"
        self.extra_env |= {
            "PYTHONPATH": str(modules),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.SecretService.Keyring",
            "FAKE_SECRET_SERVICE": str(kept),
            "FAKE_SECRET_SERVICE_MODE": mode,
        }
        return kept


def pipe_with(data: bytes) -> int:
    """Return the reading end of a pipe that holds some bytes and then ends; the caller closes it."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return reading
