"""The process that reads the secret store for the daemon: ``python -P -m daemon.secrets.store_reading``.

It gets ``{"path", "key"}`` on standard input, ends its answer on standard output and lives for a fifth of a second.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from agent_runner.hardening import harden
from daemon.errors import DaemonError, SecretKeyStaleError
from daemon.secrets.store.secret_store import SecretStore
from daemon.secrets.store.store_folder import StoreFolder
from daemon.secrets.store.store_key import StoreKey
from daemon.secrets.usable import problem_of


def read_store(path: str, key: str) -> dict[str, Any]:
    """Return all values that a variable can carry, and why it cannot carry the others; or why the store cannot be read."""
    folder = StoreFolder(Path(path).parent)
    try:
        secrets = SecretStore.open_with_key(
            folder, StoreKey.from_bytes(bytes.fromhex(key))
        ).read_all()
    except SecretKeyStaleError:
        return {"stale": True}
    except DaemonError as error:
        return {"problem": str(error)}
    problems = {name: problem_of(secret.reveal_text()) for name, secret in secrets.items()}
    return {
        "values": [
            [*name, secret.reveal_text()] for name, secret in secrets.items() if not problems[name]
        ],
        "unusable": [[*name, problem] for name, problem in problems.items() if problem],
    }


if __name__ == "__main__":
    harden()
    sys.stdout.write(json.dumps(read_store(**json.load(sys.stdin))))
