"""The secrets of one ``run-local``: all of them found, or all that are missing named, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent_runner.errors import InvalidJobSpecError, SecretMissingError
from agent_runner.secret_refs import (
    LOCAL_PATH,
    SecretRef,
    refs_of,
    require,
    resolve,
    source_credentials,
)
from daemon.cli.output import note
from daemon.errors import SecretNeededError, UsageError
from daemon.secrets.gather import ask_for, look_up
from daemon.secrets.values import WantedSecret

if TYPE_CHECKING:
    from agent_runner.job_spec import JobSpec
    from daemon.cli.secret_search import SecretSearch

LOCKED = "the secret store is locked; set RUNNER_SECRETS_PASSWORD, or run this in a terminal, which asks for its password"
NO_STORE = "there is no secret store yet: run `runner secrets init`"


def find_secrets(spec: JobSpec, search: SecretSearch) -> dict[SecretRef, str]:
    """Return the value of every reference of a job; one derivation of the store's key at most.

    Raises:
        SecretNeededError: References have no value; names all of them.
        UsageError: A variable would hold what no process can be given; names it and the reference.
        WrongPasswordError, DamagedSecretStoreError, Interrupted: As ``SecretSearch.open_store``.
    """
    refs = refs_of(spec)
    if not refs:
        return {}
    values, why_missing = look_up_secrets(refs, search, may_ask=True)
    missing = [ref for ref in refs if ref not in values]
    if missing and search.ask and all(ref.path == LOCAL_PATH for ref in missing):
        for ref in missing:
            typed = ask_for(WantedSecret(name=ref.key, required=True), search.ask, note)
            if typed is not None:
                values[ref] = typed
    try:
        require(refs, values, why_missing)
        resolve(spec.env, values)
        source_credentials(spec, values)
    except SecretMissingError as error:
        raise SecretNeededError(str(error)) from None
    except InvalidJobSpecError as error:
        raise UsageError(str(error)) from None
    return values


def look_up_secrets(
    refs: Sequence[SecretRef], search: SecretSearch, *, may_ask: bool
) -> tuple[dict[SecretRef, str], str]:
    """Return the values that the environment, the store and the keyring have, and why the store has no more.

    Args:
        refs: What is looked for.
        search: Where.
        may_ask: Whether the password of the store is asked for, if there is a reference to it.

    Raises:
        WrongPasswordError, DamagedSecretStoreError, Interrupted: As ``SecretSearch.open_store``.
    """
    stored = [ref for ref in refs if ref.path != LOCAL_PATH]
    local = [ref for ref in refs if ref.path == LOCAL_PATH]
    in_environment = [ref for ref in local if search.env.get(ref.key)]
    if stored or len(in_environment) < len(local):
        search.open_store(may_ask=may_ask and bool(stored))
    values = search.stored(stored)
    found = look_up([ref.key for ref in local], search.sources())
    values |= {ref: found[ref.key].value.reveal() for ref in local if ref.key in found}
    return values, _why_missing(search) if search.store is None else ""


def _why_missing(search: SecretSearch) -> str:
    return LOCKED if search.has_store() else NO_STORE
