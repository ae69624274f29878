"""``${NAME}`` and ``${NAME:-default}`` in ``env``, filled in from the caller's environment where the caller asks for it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent_runner.secret_refs import LOCAL_PATH, SecretRef
from sandbox.masking.floors import MIN_DERIVED_BYTES, is_secret_name

_VARIABLE = re.compile(
    r"(?P<escape>\$?)\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}"
)
_REFERENCE = "${secret:"
_PASSWORDS = ("RUNNER_SECRETS_", "REACTORCIDE_SECRETS_")
"""How the variables begin that open the secret store; no job file gets them."""


def pass_through(env: Mapping[str, str], caller: Mapping[str, str]) -> dict[str, str]:
    """Return a job's variables with those of the caller filled in; what the caller has not, and has no default, stays.

    Called once per ``run-local --env-passthrough``. A variable that is a secret by its name becomes the reference by which
    ``run-local`` takes it from the caller, so that it is hidden whatever the job calls it. Any other value of the caller
    is text: nothing in it is a secret reference.
    """

    def value(match: re.Match[str]) -> str:
        if match["escape"] or match["name"].startswith(_PASSWORDS):
            return match[0]
        found = caller.get(match["name"])
        if found and len(found) >= MIN_DERIVED_BYTES and is_secret_name(match["name"]):
            return str(SecretRef(LOCAL_PATH, match["name"]))
        found = found or match["default"]
        return match[0] if found is None else found.replace(_REFERENCE, f"${_REFERENCE}")

    return {name: _VARIABLE.sub(value, text) for name, text in env.items()}
