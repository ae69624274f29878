"""Stores for tests, and processes that write to them."""

from __future__ import annotations

import subprocess
import sys

from daemon.secrets.store.names import parse_name
from daemon.secrets.store.secret_store import SecretStore
from daemon.secrets.store.store_folder import StoreFolder
from daemon.secrets.values import SecretValue

PASSWORD = SecretValue("correct horse")
COST = 14
"""The lowest there is: 24 ms and 16 MiB."""
KEY = parse_name("a", "KEY")

# Opens the store, says so, and writes until it is killed; each value is as long as its predecessor is not.
WRITER = """
import sys
from pathlib import Path
from daemon.secrets.store.names import parse_name
from daemon.secrets.store.secret_store import SecretStore
from daemon.secrets.store.store_folder import StoreFolder
from daemon.secrets.store.store_key import StoreKey
folder, key, count = sys.argv[1], bytes.fromhex(sys.stdin.readline()), int(sys.argv[2])
folder = StoreFolder(Path(folder), lock_timeout_s=60)  # no queue: who waits with 23 others may be the last one every time
store = SecretStore.open_with_key(folder, StoreKey.from_bytes(key))
name = parse_name("w", sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
number = 0
while count < 0 or number < count:
    number += 1
    store.put({name: b"%d:" % number + b"x" * (number * 700 % 5000)})
"""


# Starts a writer for each line, and kills it after as many seconds: forked, because loading cryptography takes longer than all else.
FORKING_WRITER = """
import os, signal, sys, time
from pathlib import Path
from daemon.secrets.store.names import parse_name
from daemon.secrets.store.secret_store import SecretStore
from daemon.secrets.store.store_folder import StoreFolder
from daemon.secrets.store.store_key import StoreKey
key = StoreKey.from_bytes(bytes.fromhex(sys.stdin.readline()))
store = SecretStore.open_with_key(StoreFolder(Path(sys.argv[1])), key)
name = parse_name("w", "K")
for line in sys.stdin:
    pid = os.fork()
    number = 0
    while pid == 0:
        number += 1
        store.put({name: b"%d:" % number + b"x" * (number * 700 % 5000)})
    time.sleep(float(line))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    print("killed", flush=True)
"""


def new_store(folder: StoreFolder) -> SecretStore:
    """Make a store with three values."""
    made = SecretStore.create(folder, PASSWORD, cost=COST)
    made.put({KEY: b"v-1", parse_name("a", "OTHER"): b"v-2", parse_name("b/c", "KEY"): b"v-3"})
    return made


def writer(store: SecretStore, count: int, key: str) -> subprocess.Popen[bytes]:
    """Start a process that writes; it waits for ``go``."""
    root = str(store.folder.root)
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, root, str(count), key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin
    child.stdin.write(store.key.to_bytes().hex().encode() + b"\n")
    child.stdin.flush()
    return child


def go(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin
    assert child.stdout
    assert child.stdout.readline() == b"ready\n"
    child.stdin.write(b"\n")
    child.stdin.flush()


def leftovers(folder: StoreFolder) -> list[str]:
    return [path.name for path in folder.root.iterdir() if path.name.endswith(".tmp")]
