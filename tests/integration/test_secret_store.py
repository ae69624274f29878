"""The secret store: what goes in comes out, under its password only."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from daemon.errors import (
    SecretExistsError,
    SecretKeyStaleError,
    SecretNotFoundError,
    UsageError,
    WrongPasswordError,
)
from daemon.secrets.store import store_key
from daemon.secrets.store.names import SecretName, parse_name
from daemon.secrets.store.secret_store import OnConflict, SecretStore
from daemon.secrets.store.store_folder import StoreFolder
from daemon.secrets.store.store_key import StoreKey
from daemon.secrets.values import SecretValue
from tests.integration.secret_stores import (
    COST,
    KEY,
    PASSWORD,
    new_store,
)


@pytest.fixture
def folder(tmp_path: Path) -> StoreFolder:
    return StoreFolder(tmp_path / "config" / "runner" / "secrets", lock_timeout_s=30)


@pytest.fixture
def store(folder: StoreFolder) -> SecretStore:
    return new_store(folder)


def test_values_come_back(store: SecretStore, folder: StoreFolder) -> None:
    """As bytes, by name, from another opening of the same store."""
    again = SecretStore.open(folder, PASSWORD)

    assert {str(name): one.reveal() for name, one in again.read_all().items()} == {
        "a:KEY": b"v-1",
        "a:OTHER": b"v-2",
        "b/c:KEY": b"v-3",
    }
    assert again.names() == sorted(again.read_all())
    with pytest.raises(SecretNotFoundError, match="a:NOPE"):
        again.get(SecretName("a", "NOPE"))


@pytest.mark.case("set-overwrite", "set-identical")
def test_a_write_counts_only_when_something_changes(
    store: SecretStore, folder: StoreFolder
) -> None:
    """The same value is no write; another one is, and the generation says so."""
    before = folder.file.read_bytes(), store.generation()
    assert store.put({KEY: b"v-1"}).unchanged == [KEY]
    assert (folder.file.read_bytes(), store.generation()) == before

    assert store.put({KEY: b"v-9"}).replaced == [KEY]
    assert store.generation() == before[1] + 1


@pytest.mark.case("import-merge-conflict")
def test_conflicts_are_all_named_and_nothing_is_stored(
    store: SecretStore, folder: StoreFolder
) -> None:
    """Unless it is said which one wins."""
    values = {KEY: b"other", parse_name("a", "OTHER"): b"v-2", parse_name("n", "NEW"): b"new"}
    before = folder.file.read_bytes()
    with pytest.raises(SecretExistsError) as strict:
        store.put(values, OnConflict.REFUSE)
    with pytest.raises(SecretExistsError) as lenient:
        store.put(values, OnConflict.REFUSE_OTHER_VALUE)
    assert "a:KEY, a:OTHER" in str(strict.value)
    assert "a:OTHER" not in str(lenient.value)
    assert folder.file.read_bytes() == before

    result = store.put(values, OnConflict.SKIP)
    assert (result.skipped, len(result.added), store.get(KEY).reveal()) == ([KEY], 1, b"v-1")


@pytest.mark.case("delete-existing", "delete-missing")
def test_a_deleted_value_is_gone(store: SecretStore, folder: StoreFolder) -> None:
    """With its path when that is empty; deleting nothing writes nothing."""
    store.delete(parse_name("b/c", "KEY"))
    assert {name.path for name in store.names()} == {"a"}

    before = folder.file.read_bytes()
    with pytest.raises(SecretNotFoundError):
        store.delete(parse_name("b/c", "KEY"))
    assert folder.file.read_bytes() == before
    assert sorted(path.name for path in folder.root.iterdir()) == [".lock", "secrets.json"]


@pytest.mark.case("passwd-change")
def test_a_changed_password(store: SecretStore, folder: StoreFolder) -> None:
    """The values stay; salt and key are new; a handed key and the old password open it no more."""
    handed = SecretStore.open_with_key(folder, StoreKey.from_bytes(store.key.to_bytes()))
    beside = SecretStore.open(folder, PASSWORD)
    salt = json.loads(folder.file.read_bytes())["kdf"]["salt"]
    values = store.read_all()

    store.change_password(SecretValue("new password"), COST)

    assert store.read_all() == values
    assert json.loads(folder.file.read_bytes())["kdf"]["salt"] != salt
    with pytest.raises(SecretKeyStaleError):
        handed.read_all()
    with pytest.raises(WrongPasswordError):
        beside.put({KEY: b"lost?"})
    with pytest.raises(WrongPasswordError):
        SecretStore.open(folder, PASSWORD)


def test_a_new_salt_of_the_same_password_is_found_out(
    store: SecretStore, folder: StoreFolder
) -> None:
    """Whoever knows the password derives the key again, once."""
    beside = SecretStore.open(folder, PASSWORD)
    store.change_password(PASSWORD, COST)
    beside.put({KEY: b"after"})
    assert store.get(KEY).reveal() == b"after"


@pytest.mark.case("init-force-keeps-backup", "init-twice")
def test_a_store_is_replaced_only_by_force_and_kept(
    store: SecretStore, folder: StoreFolder
) -> None:
    """With a new salt; the old file opens under its old password."""
    folder.file.chmod(0o644)
    old = folder.file.read_bytes()
    with pytest.raises(UsageError, match="init --force"):
        SecretStore.create(folder, PASSWORD, cost=COST)
    assert folder.file.read_bytes() == old

    kept: list[str] = []
    for _ in range(2):  # within one second, too
        SecretStore.create(folder, PASSWORD, cost=COST, force=True, kept=kept.append)

    assert len(set(kept)) == 2
    assert Path(kept[0]).read_bytes() == old
    assert stat.S_IMODE(Path(kept[0]).stat().st_mode) == 0o600
    assert json.loads(folder.file.read_bytes())["kdf"]["salt"] != json.loads(old)["kdf"]["salt"]


@pytest.mark.case("ref-one-derivation")
def test_one_derivation_per_run(
    store: SecretStore, folder: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a store is read and written; none with a key that was handed over."""
    costs: list[int] = []
    derive = store_key.derive

    def counted(password: bytes, salt: bytes, n: int, p: int) -> bytes:
        costs.append(n)
        return derive(password, salt, n, p)

    monkeypatch.setattr(store_key, "derive", counted)
    again = SecretStore.open(folder, PASSWORD)
    for number in range(5):
        again.put({KEY: b"%d" % number})
        again.read_all()
    handed = StoreKey.from_bytes(again.key.to_bytes())
    assert SecretStore.open_with_key(folder, handed).get(KEY).reveal() == b"4"
    assert costs == [1 << COST]
