"""`runner secrets` on files that are damaged, changed, or no store at all: exit codes, and nothing is written."""

from __future__ import annotations

import pytest

from tests.e2e.secrets_home import NO_PASSWORD, SecretsHome

VALUE = "canary-Zq7Zq7Zq7"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b'"token": "gAAAAA', b'"token": "gAAAAB', 6),
        (b'"n": 16384', b'"n": 32768', 4),
        (b'"version": 1', b'"version": 2', 6),
        (b'"n": 16384', b'"n": 2147483648', 6),
        (b'"check"', b'"token"', 6),
    ],
)
@pytest.mark.case(
    "tamper-bitflip-token",
    "tamper-kdf-lowered",
    "tamper-salt",
    "version-newer",
    "tamper-duplicate-json-keys",
)
def test_a_changed_file(home: SecretsHome, old: bytes, new: bytes, code: int) -> None:
    """Every command says so, and leaves it as it is."""
    home.make(KEY=VALUE)
    changed = home.file.read_bytes().replace(old, new)
    home.file.write_bytes(changed)
    for command in (("get", "a", "KEY"), ("set", "a", "KEY", "--stdin"), ("list-paths",)):
        home.error(*command, code=code, stdin=b"v-1")
    if code == 6 and old != b'"token": "gAAAAA':
        # Found before a password is looked for.
        home.error("get", "a", "KEY", code=6, env=NO_PASSWORD)
        home.error("init", code=6)
    assert home.file.read_bytes() == changed


@pytest.mark.case("damage-empty", "damage-salt-file-lost")
def test_files_that_are_no_store(home: SecretsHome) -> None:
    """Neither an empty file nor half a store of the first generation is taken for a new one."""
    home.folder.make()
    home.file.touch(0o600)
    home.error("get", "a", "KEY", code=6)
    home.error("init", code=6)
    home.file.unlink()

    (home.file.parent / "secrets.enc").write_bytes(b"gAAAA")
    for command in (("get", "a", "KEY"), ("set", "a", "KEY", "--stdin"), ("init",)):
        assert "salt missing" in home.error(*command, code=6, stdin=b"v-1")
    assert [path.name for path in home.file.parent.iterdir()] == ["secrets.enc"]
