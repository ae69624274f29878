"""The folder of the secret store on a real file system: many writers, killed writers, full disks, links and foreign owners."""

from __future__ import annotations

import fcntl
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from daemon.errors import (
    BusyError,
    DamagedSecretStoreError,
    NoSecretStoreError,
    SecretStoreError,
    UsageError,
)
from daemon.secrets.store.names import parse_name
from daemon.secrets.store.secret_store import SecretStore
from daemon.secrets.store.store_folder import StoreFolder
from tests.integration.secret_stores import (
    COST,
    FORKING_WRITER,
    KEY,
    PASSWORD,
    go,
    leftovers,
    new_store,
    writer,
)
from tests.waiting import wait_until

KILLS = 60


@pytest.fixture
def folder(tmp_path: Path) -> StoreFolder:
    return StoreFolder(tmp_path / "config" / "runner" / "secrets", lock_timeout_s=30)


@pytest.fixture
def store(folder: StoreFolder) -> SecretStore:
    return new_store(folder)


@pytest.mark.case("init-umask-000")
def test_modes_do_not_depend_on_the_umask(folder: StoreFolder) -> None:
    """Files 0600 and folder 0700 at every moment, as the system calls show."""
    previous = os.umask(0)
    try:
        SecretStore.create(folder, PASSWORD, cost=COST)
    finally:
        os.umask(previous)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.root.iterdir()}
    assert modes == {".lock": 0o600, "secrets.json": 0o600}
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700


def test_open_modes_are_warned_of(store: SecretStore, folder: StoreFolder) -> None:
    """And taken from others at the next write."""
    folder.file.chmod(0o644)
    warnings: list[str] = []
    SecretStore.open(StoreFolder(folder.root, warn=warnings.append), PASSWORD)
    assert len(warnings) == 1
    assert "0644" in warnings[0]
    store.put({KEY: b"v-9"})
    assert stat.S_IMODE(folder.file.stat().st_mode) == 0o600


@pytest.mark.case("concurrent-set-24")
def test_concurrent_writers_lose_nothing(store: SecretStore, folder: StoreFolder) -> None:
    """24 processes, ten writes of a key of their own each, all at once."""
    generation = store.generation()
    children = [writer(store, 10, f"K{number}") for number in range(24)]
    for child in children:
        go(child)
    for child in children:
        child.communicate(timeout=60)
        assert child.returncode == 0

    assert {f"K{number}" for number in range(24)} <= {name.key for name in store.names()}
    assert store.generation() == generation + 240
    assert leftovers(folder) == []


@pytest.mark.case("kill-9-during-set")
def test_killed_writers_leave_a_readable_store(store: SecretStore, folder: StoreFolder) -> None:
    """60 times kill -9 in the middle, and the store opens each time; the next write removes what is left."""
    name = parse_name("w", "K")
    store.put({name: b"0:"})
    rng = random.Random(7)
    found = 0
    with subprocess.Popen(
        [sys.executable, "-c", FORKING_WRITER, str(folder.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdin
        assert parent.stdout
        parent.stdin.write(store.key.to_bytes().hex() + "\n")
        for _ in range(KILLS):
            parent.stdin.write(f"{rng.uniform(0.001, 0.02)}\n")
            parent.stdin.flush()
            assert parent.stdout.readline() == "killed\n"
            found += len(leftovers(folder))
            number, _, rest = SecretStore.open(folder, PASSWORD).get(name).reveal().partition(b":")
            assert rest == b"x" * (int(number) * 700 % 5000)
        parent.stdin.close()
    assert found, "no writer was hit in the middle"
    store.put({KEY: b"afterwards"})
    assert leftovers(folder) == []
    assert store.get(parse_name("b/c", "KEY")).reveal() == b"v-3"


@pytest.mark.case("reader-during-write")
def test_readers_see_the_old_or_the_new_and_take_no_lock(
    store: SecretStore, folder: StoreFolder
) -> None:
    """While another process writes as fast as it can, and holds the lock."""
    child = writer(store, -1, "K")
    go(child)
    reader = SecretStore.open_with_key(folder, store.key)
    name = parse_name("w", "K")
    seen = set()
    try:
        wait_until(lambda: name in reader.names(), 20)

        def read() -> bool:
            number, _, rest = reader.get(name).reveal().partition(b":")
            assert rest == b"x" * (int(number) * 700 % 5000)
            seen.add(number)
            return len(seen) > 100

        wait_until(read, 30, lambda: f"{len(seen)} different values")
    finally:
        child.kill()
        child.communicate()
    with open(folder.root / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert reader.get(name).size


@pytest.mark.case("lock-held")
def test_a_held_lock_is_waited_for_and_named(store: SecretStore, folder: StoreFolder) -> None:
    """Then it is busy; when the holder dies it is free, whatever file it leaves."""
    hold = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, 2); print('held', flush=True); sys.stdin.read()"
    path = str(folder.root / ".lock")
    with subprocess.Popen(
        [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        impatient = SecretStore.open_with_key(
            StoreFolder(folder.root, lock_timeout_s=0.2), store.key
        )
        with pytest.raises(BusyError, match=rf"process {holder.pid}\b"):
            impatient.put({KEY: b"v-9"})
        done = threading.Event()

        def write() -> None:
            SecretStore.open_with_key(folder, store.key).put({KEY: b"waited"})
            done.set()

        waiting = threading.Thread(target=write)
        waiting.start()
        holder.kill()
        assert done.wait(20)
        waiting.join()
    assert store.get(KEY).reveal() == b"waited"


def test_a_removed_lock_file_excludes_others_all_the_same(
    store: SecretStore, folder: StoreFolder
) -> None:
    """A writer that waits at a lock file that is no more takes the new one."""
    with open(folder.root / ".lock") as old:
        fcntl.flock(old, fcntl.LOCK_EX)
        writing = threading.Thread(target=lambda: store.put({KEY: b"v-9"}))
        writing.start()
        (folder.root / ".lock").unlink()
        writing.join(20)
        assert not writing.is_alive()
    assert store.get(KEY).reveal() == b"v-9"


@pytest.mark.case("disk-full")
def test_a_full_disk_changes_nothing(store: SecretStore, folder: StoreFolder) -> None:
    """The old file stays, the temporary one does not."""
    before = folder.file.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(SecretStoreError, match="cannot use"):
            store.put({KEY: b"v-9"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert folder.file.read_bytes() == before
    assert leftovers(folder) == []


def test_a_store_takes_no_more_than_it_can_read(store: SecretStore, folder: StoreFolder) -> None:
    """A value over 1 MiB, and a file over 8 MiB, are refused before anything is written."""
    with pytest.raises(UsageError, match="longer than a secret may be"):
        store.put({KEY: b"x" * ((1 << 20) + 1)})
    with pytest.raises(UsageError, match="larger than it can be"):
        store.put({parse_name("big", f"K{number}"): b"x" * (1 << 20) for number in range(8)})
    assert len(store.names()) == 3
    assert leftovers(folder) == []


@pytest.mark.case("symlink-tmp-planted")
def test_planted_links_are_not_followed(
    store: SecretStore, folder: StoreFolder, tmp_path: Path
) -> None:
    """Not as a temporary file, as the lock, as the store or as its folder."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (folder.root / ".secrets-0000000000000000.tmp").symlink_to(victim)
    store.put({KEY: b"v-9"})
    assert leftovers(folder) == []

    (folder.root / ".lock").unlink()
    (folder.root / ".lock").symlink_to(victim)
    with pytest.raises(SecretStoreError):
        store.put({KEY: b"v-10"})
    (folder.root / ".lock").unlink()

    real = folder.file.rename(tmp_path / "elsewhere.json")
    folder.file.symlink_to(real)
    with pytest.raises(UsageError, match="is a link"):
        SecretStore.open(folder, PASSWORD)

    linked = tmp_path / "linked"
    linked.symlink_to(folder.root)
    with pytest.raises(UsageError, match="is a link"):
        SecretStore.open(StoreFolder(linked), PASSWORD)
    assert victim.read_text() == "untouched"


@pytest.mark.case("perm-owned-by-other")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_belongs_to_somebody_else_is_refused(
    store: SecretStore, folder: StoreFolder, what: str
) -> None:
    """Unless that is meant; then it goes on belonging to them."""
    os.chown(folder.file, 65534, 65534)
    if what == "folder":
        os.chown(folder.root, 65534, 65534)
        (folder.root / ".lock").unlink()
    with pytest.raises(UsageError, match="belongs to user 65534"):
        SecretStore.open(folder, PASSWORD)

    allowed = StoreFolder(folder.root, allow_foreign_owner=True)
    SecretStore.open(allowed, PASSWORD).put({KEY: b"v-9"})
    owner = folder.root.stat().st_uid
    assert {path.stat().st_uid for path in folder.root.iterdir()} == {owner}


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 100])
@pytest.mark.case("damage-empty")
def test_a_damaged_file_is_no_new_store(folder: StoreFolder, content: bytes) -> None:
    """It is said to be damaged, and left as it is."""
    folder.make()
    folder.file.write_bytes(content)
    folder.file.chmod(0o600)
    with pytest.raises(DamagedSecretStoreError):
        SecretStore.open(folder, PASSWORD)
    assert folder.file.read_bytes() == content


def test_something_else_in_the_place_of_the_file(folder: StoreFolder) -> None:
    """A fifo blocks nobody, a folder is none."""
    folder.make()
    os.mkfifo(folder.file, 0o600)
    with pytest.raises(DamagedSecretStoreError):
        SecretStore.open(folder, PASSWORD)
    folder.file.unlink()
    folder.file.mkdir(0o700)
    with pytest.raises(DamagedSecretStoreError):
        SecretStore.open(folder, PASSWORD)


@pytest.mark.case("damage-salt-file-lost", "set-without-init")
def test_no_store_and_stores_of_the_first_generation(folder: StoreFolder) -> None:
    """What is missing is said; nothing is made."""
    with pytest.raises(NoSecretStoreError, match="runner secrets init"):
        SecretStore.open(folder, PASSWORD)
    assert not folder.root.exists()

    folder.make()
    (folder.root / "secrets.enc").write_bytes(b"gAAAA")
    with pytest.raises(DamagedSecretStoreError, match="salt missing"):
        SecretStore.open(folder, PASSWORD)
    (folder.root / ".salt").write_bytes(b"x" * 32)
    with pytest.raises(NoSecretStoreError, match="--from-reactorcide"):
        SecretStore.open(folder, PASSWORD)
    assert sorted(path.name for path in folder.root.iterdir()) == [".salt", "secrets.enc"]


def test_a_signal_in_the_middle_of_a_write_leaves_nothing(
    store: SecretStore, folder: StoreFolder
) -> None:
    """An interrupted writer removes its temporary file itself."""
    child = writer(store, -1, "K")
    go(child)
    wait_until(lambda: any(name.path == "w" for name in store.names()), 20)
    child.send_signal(signal.SIGINT)
    child.communicate()
    assert leftovers(folder) == []
