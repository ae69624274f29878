"""The process in which the keyring library runs: one request on standard input, one answer on standard output.

Started by ``os_keyring`` with a limit of five seconds. Backends are taken from an allow-list: others keep values in clear text, or nothing.
An answer of an error holds the kind of a failure, never its text, which may hold what was to be kept.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from agent_runner.hardening import harden

ALLOWED_MODULES = frozenset(
    {
        "keyring.backends.SecretService",
        "keyring.backends.libsecret",
        "keyring.backends.kwallet",
        "keyring.backends.macOS",
        "keyring.backends.Windows",
    }
)
_CHAINER = "keyring.backends.chainer"
_NONE = frozenset({"keyring.backends.fail", "keyring.backends.null"})


class RefusedError(Exception):
    """There is no backend that may be used; the text says why."""


def main() -> None:
    """Answer one request."""
    harden()
    # What a backend prints must not get between the answer and its reader.
    answers = os.dup(1)
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    try:
        answer = _answer(request)
    except RefusedError as refusal:
        answer = {"error": str(refusal)}
    except ModuleNotFoundError as error:
        absent = error.name == "keyring"
        answer = {"error": "not installed" if absent else "its configured backend does not exist"}
    except Exception as error:  # noqa: BLE001 - backends raise anything
        answer = {"error": f"it failed ({type(error).__name__})"}
    with os.fdopen(answers, "w") as pipe:
        json.dump(answer, pipe)


def _answer(request: Mapping[str, str]) -> dict[str, Any]:
    backend = _first_allowed()
    name = f"{type(backend).__module__}.{type(backend).__qualname__}"
    if request["do"] == "name":
        return {"backend": name}
    if request["do"] == "load":
        return {"value": backend.get_password(request["service"], request["name"])}
    backend.set_password(request["service"], request["name"], request["value"])
    # The null backend says nothing and keeps nothing; others may do so too.
    if backend.get_password(request["service"], request["name"]) != request["value"]:
        raise RefusedError(f"{name} did not keep the value")
    return {"backend": name}


def _first_allowed() -> Any:
    """Return the backend to use; looks inside a chain, which takes the first that works, whatever it is."""
    import keyring  # noqa: PLC0415 - may be absent, and runs foreign code

    backend: Any = keyring.get_keyring()
    module = type(backend).__module__
    candidates = list(backend.backends) if module == _CHAINER else [backend]
    for candidate in candidates:
        if type(candidate).__module__ in ALLOWED_MODULES:
            return candidate
    modules = sorted({type(candidate).__module__ for candidate in candidates} - _NONE)
    if not modules:
        raise RefusedError("this host has none")
    raise RefusedError(f"{', '.join(modules)} is refused: it is not known to keep values encrypted")


if __name__ == "__main__":
    main()
