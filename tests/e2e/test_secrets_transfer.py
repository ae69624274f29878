"""`runner secrets passwd|export|import`: the same values under another password, in another file, from other tools."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from daemon.secrets.store.names import SecretName
from daemon.secrets.store.secret_store import SecretStore
from daemon.secrets.values import SecretValue
from tests.e2e.secrets_home import NO_PASSWORD, PASSWORD, VARIABLE, SecretsHome, pipe_with

VALUE = "canary-Zq7Zq7Zq7"
OTHER_PASSWORD = "another-horse-5"


@pytest.fixture
def filled(home: SecretsHome) -> SecretsHome:
    home.make(KEY=VALUE, BYTES=b"\xff\0", LINES="x\ny\n", EMPTY="")
    return home


def all_values(home: SecretsHome, password: str = PASSWORD) -> dict[str, bytes]:
    return {str(name): one.reveal() for name, one in home.open(password).read_all().items()}


def empty_again(home: SecretsHome) -> None:
    SecretStore.create(home.folder, SecretValue(PASSWORD), cost=14, force=True)


@pytest.mark.case("passwd-change", "passwd-wrong-old")
def test_passwd_without_a_terminal(filled: SecretsHome, tmp_path: Path) -> None:
    """Old and new from files or descriptors; the values stay, the salt does not."""
    values, before = all_values(filled), json.loads(filled.file.read_bytes())
    new = tmp_path / "new"
    new.write_text(OTHER_PASSWORD + "\n")
    args = ("passwd", "--kdf-cost", "15", "--new-password-file", str(new))
    filled.error(*args, code=4, env={VARIABLE: "wrong-one"})
    assert json.loads(filled.file.read_bytes()) == before

    assert b"still open with the old password" in filled.secrets(*args).stderr
    assert all_values(filled, OTHER_PASSWORD) == values
    assert json.loads(filled.file.read_bytes())["kdf"]["salt"] != before["kdf"]["salt"]
    filled.error("list-paths", code=4)
    new.write_text("short")
    assert "8 characters" in filled.error(*args, code=2, env={VARIABLE: OTHER_PASSWORD})


@pytest.mark.case("kdf-upgrade")
def test_a_cheaper_key_is_kept_until_that_is_asked_for(home: SecretsHome) -> None:
    """It is said; --upgrade-kdf or another password changes it."""
    home.make(cost=15, KEY="old-value")

    def cost() -> int:
        return int(json.loads(home.file.read_bytes())["kdf"]["n"])

    done = home.secrets("set", "a", "KEY", "--stdin", stdin=b"new-value")
    assert b"--upgrade-kdf" in done.stderr
    assert cost() == 1 << 15
    done = home.secrets("set", "a", "KEY", "--stdin", "--upgrade-kdf", stdin=b"new-value")
    assert b"2^17" in done.stderr
    assert cost() == 1 << 17
    home.secrets("passwd", "--upgrade-kdf", "--kdf-cost", "15")
    assert cost() == 1 << 15
    assert home.value("KEY") == b"new-value"


@pytest.mark.case("export-plaintext-mode")
def test_export_in_clear_text(filled: SecretsHome, tmp_path: Path) -> None:
    """Private under any umask, with a warning, never over another file, and it comes back whole."""
    out = tmp_path / "x.json"
    previous = os.umask(0o022)
    try:
        done = filled.secrets("export", "--plaintext", "-o", str(out))
    finally:
        os.umask(previous)
    assert b"warning" in done.stderr
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert json.loads(out.read_bytes())["secrets"]["a"]["KEY"] == VALUE
    before = out.read_bytes()
    assert "--force" in filled.error("export", "--plaintext", "-o", str(out), code=2)
    assert out.read_bytes() == before
    assert filled.secrets("export", "--plaintext").stdout == before
    assert [path.name for path in tmp_path.iterdir() if ".tmp" in path.name] == []

    values = all_values(filled)
    empty_again(filled)
    assert b"4 imported" in filled.secrets("import", str(out)).stderr
    assert all_values(filled) == values


def test_export_follows_no_link(filled: SecretsHome, tmp_path: Path) -> None:
    """Neither without nor with --force."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    out = tmp_path / "x.json"
    out.symlink_to(victim)
    filled.error("export", "-o", str(out), code=2)
    filled.secrets("export", "-o", str(out), "--force")
    assert victim.read_text() == "untouched"
    assert not out.is_symlink()
    assert "No such file" in filled.error("export", "-o", str(tmp_path / "no" / "x"), code=1)


def test_export_is_encrypted_by_default(filled: SecretsHome, tmp_path: Path) -> None:
    """Under the same password, or another one."""
    same, other, new = tmp_path / "same.json", tmp_path / "other.json", tmp_path / "new"
    new.write_text(OTHER_PASSWORD)
    filled.secrets("export", "-o", str(same))
    filled.secrets("export", "-o", str(other), "--new-password-file", str(new))
    assert stat.S_IMODE(same.stat().st_mode) == 0o600
    values = all_values(filled)
    for file in (same, other):
        assert VALUE.encode() not in file.read_bytes()
    empty_again(filled)
    filled.error("import", str(other), code=4)
    assert b"4 imported" in filled.secrets("import", str(same)).stderr
    done = filled.secrets("import", str(other), "--from-password-file", str(new))
    assert b"4 unchanged" in done.stderr
    assert all_values(filled) == values


@pytest.mark.case("import-merge-conflict")
def test_a_conflict_is_decided_by_the_person(filled: SecretsHome, tmp_path: Path) -> None:
    """Names only; nothing is imported before that."""
    file = tmp_path / "x.json"
    file.write_text(
        json.dumps({"a": {"KEY": "from-file-canary", "LINES": "x\ny\n"}, "n": {"NEW": "1"}})
    )
    before = filled.file.read_bytes()
    line = filled.error("import", str(file), code=2)
    assert "a:KEY" in line
    assert "LINES" not in line
    assert "canary" not in line
    assert filled.file.read_bytes() == before
    filled.error("import", str(file), "--overwrite", "--skip-existing", code=2)

    assert (
        b"1 imported, 1 unchanged, 1 skipped"
        in filled.secrets("import", str(file), "--skip-existing").stderr
    )
    assert filled.value("KEY") == VALUE.encode()
    filled.secrets("import", str(file), "--overwrite")
    assert filled.value("KEY") == b"from-file-canary"


@pytest.mark.parametrize(
    "bad",
    [
        {"a/../b": {"K": "x"}},
        {"a": {"K\x1b[31m": "x"}},
        {"a": {"K": 7}},
        {"a": "canary"},
        {"a": {"K": "x" * (1 << 21)}},
    ],
)
@pytest.mark.case("import-atomic", "list-terminal-escape")
def test_an_invalid_entry_imports_nothing(
    filled: SecretsHome, tmp_path: Path, bad: dict[str, object]
) -> None:
    """Whichever of them it is."""
    file = tmp_path / "x.json"
    file.write_text(json.dumps({**{f"p{n}": {"K": "v"} for n in range(6)}, **bad, "z": {"K": "v"}}))
    before = filled.file.read_bytes()
    line = filled.error("import", str(file), code=2)
    assert "canary" not in line
    assert "\x1b" not in line
    assert filled.file.read_bytes() == before


def test_import_refuses_what_is_no_export(filled: SecretsHome, tmp_path: Path) -> None:
    """By its words; a damaged export is damaged."""
    file = tmp_path / "x.json"
    for content in (b"", b"[]", b"not json", b'{"a": {"K": "v", "K": "w"}}'):
        file.write_bytes(content)
        filled.error("import", str(file), code=2)
    file.write_bytes(filled.file.read_bytes()[:-10])
    filled.error("import", str(file), code=2)
    file.write_bytes(filled.file.read_bytes().replace(b'"version": 1', b'"version": 9'))
    filled.error("import", str(file), code=6)
    assert "one thing" in filled.error("import", code=2)
    assert "one thing" in filled.error("import", str(file), "--dotenv", str(file), code=2)
    filled.error("import", "/nope", code=2)


def test_import_of_a_dotenv_file(filled: SecretsHome, tmp_path: Path) -> None:
    """To a path of one's choice, by default to that of `runner local start`; also from a shell's pipe."""
    file = tmp_path / ".env"
    file.write_text("# comment\nexport NPM_TOKEN='tok en'\nEMPTY=\nPLAIN=p#1 # c\n")
    done = filled.secrets("import", "--dotenv", str(file))
    assert b"EMPTY" in done.stderr
    assert b"2 imported" in done.stderr
    assert filled.value("NPM_TOKEN", "local") == b"tok en"
    fd = pipe_with(b"X=1\n")
    filled.secrets("import", "--dotenv", f"/dev/fd/{fd}", "--path", "npm/tokens", pass_fds=(fd,))
    os.close(fd)
    assert filled.value("X", "npm/tokens") == b"1"
    file.write_text("A=1\ncanary-line\n")
    line = filled.error("import", "--dotenv", str(file), code=2)
    assert "line 2" in line
    assert "canary" not in line
    filled.error("import", "--dotenv", str(file), "--path", "../x", code=2)


def first_generation(folder: Path, tree: object, *, raw: bool, salt: bytes = b"s" * 32) -> None:
    """Write a store as the first generation does: its Python program as text, its Go program as bytes."""
    folder.mkdir(exist_ok=True)
    kdf = Scrypt(salt=salt, length=32, n=1 << 18, r=8, p=1)
    key = base64.urlsafe_b64encode(kdf.derive(OTHER_PASSWORD.encode()))
    token = Fernet(key).encrypt(json.dumps(tree, indent=2).encode())
    (folder / "secrets.enc").write_bytes(base64.urlsafe_b64decode(token) if raw else token)
    (folder / ".salt").write_bytes(salt)


@pytest.mark.parametrize("raw", [False, True])
def test_import_of_the_first_generation(filled: SecretsHome, tmp_path: Path, raw: bool) -> None:
    """Both of its spellings; neither file is touched."""
    folder = tmp_path / "reactorcide"
    first_generation(folder, {"npm/tokens": {"T": "v-1"}, "x": {"ü".encode().hex(): "ü"}}, raw=raw)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    password = tmp_path / "password"
    password.write_text(OTHER_PASSWORD)
    args = ("import", "--from-reactorcide", str(folder))
    assert "--from-password-file" in filled.error(*args, code=8)
    assert b"2 imported" in filled.secrets(*args, "--from-password-file", str(password)).stderr
    assert filled.value("T", "npm/tokens") == b"v-1"
    assert filled.value("c3bc", "x") == "ü".encode()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.case("damage-salt-file-lost", "import-atomic")
def test_a_first_generation_that_cannot_be_imported(filled: SecretsHome, tmp_path: Path) -> None:
    """All or nothing; a salt that is lost stays lost."""
    folder, password = tmp_path / "reactorcide", tmp_path / "password"
    first_generation(folder, {"ok": {"T": "v"}, "//bad": {"T": "v"}}, raw=False)
    password.write_text(OTHER_PASSWORD)
    args = ("import", "--from-reactorcide", str(folder), "--from-password-file", str(password))
    before = filled.file.read_bytes()
    assert "//bad" in filled.error(*args, code=2)
    password.write_text("wrong-password")
    filled.error(*args, code=4)
    (folder / ".salt").unlink()
    assert "salt missing" in filled.error(*args, code=6)
    assert not (folder / ".salt").exists()
    (folder / "secrets.enc").unlink()
    filled.error(*args, code=5)
    assert filled.file.read_bytes() == before
    assert filled.open().get(SecretName("a", "KEY")).reveal() == VALUE.encode()
    filled.error(*args, code=5, env=NO_PASSWORD)
