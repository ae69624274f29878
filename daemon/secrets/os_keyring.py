"""The keyring of the desktop, asked through a child process that has five seconds.

A locked Secret Service waits for a person who may sit at no desktop, computing which backend to take talks to D-Bus, and a
configuration file can name code to run: none of that belongs into a process that holds secrets, and a thread cannot be
killed. Used by the CLI only, and only by choice; never by the daemon, which has no session bus.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys

from daemon.config import environ
from daemon.errors import KeyringUnusableError

TIMEOUT_S = 5.0
_CHILD = "daemon.secrets.keyring_child"
_KEPT_OUT = "RUNNER_SECRETS_"
"""Variables of this prefix hold passwords of ours; no backend needs them."""


def load(service: str, name: str, timeout_s: float = TIMEOUT_S) -> str | None:
    """Return what the keyring keeps under a name; None if it keeps nothing.

    Raises:
        KeyringUnusableError: There is no keyring, it is locked, it keeps values in clear text, or it does not answer.
    """
    answer = _ask_child({"do": "load", "service": service, "name": name}, timeout_s)
    value = answer.get("value")
    return value if isinstance(value, str) else None


def save(service: str, name: str, value: str, timeout_s: float = TIMEOUT_S) -> str:
    """Keep a value in the keyring, read it back, and return the name of the backend that has it.

    Raises:
        KeyringUnusableError: As ``load``, or what was read back is something else.
    """
    request = {"do": "save", "service": service, "name": name, "value": value}
    return str(_ask_child(request, timeout_s).get("backend"))


def backend_name(timeout_s: float = TIMEOUT_S) -> str:
    """Return the name of the backend that would be used; for the doctor.

    Raises:
        KeyringUnusableError: There is none that can be used; says why.
    """
    return str(_ask_child({"do": "name"}, timeout_s).get("backend"))


def _ask_child(request: dict[str, str], timeout_s: float) -> dict[str, object]:
    """Run the child for one request; values go through its standard streams only."""
    env = {name: value for name, value in environ().items() if not name.startswith(_KEPT_OUT)}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", _CHILD],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as child:
        try:
            output, _ = child.communicate(json.dumps(request).encode(), timeout_s)
        except BaseException as error:
            # Not yet waited for, so the number is still its own; with it goes what a backend has started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            problem = f"it does not answer within {timeout_s:g} s (is it locked?)"
            raise KeyringUnusableError(problem) from None
    try:
        answer = json.loads(output)
    except ValueError:
        raise KeyringUnusableError("it failed without a word") from None
    if not isinstance(answer, dict) or "error" in answer:
        raise KeyringUnusableError(str(answer["error"]))
    return answer
