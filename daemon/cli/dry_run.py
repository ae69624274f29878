"""``runner run-local --dry-run``: what a job file says, and whether its secrets are there; nothing is run.

References are shown as they are written. A value that stands in the file itself is hidden where its variable's name says
that it is a secret, where it looks like one, and where it is one that was found.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent_runner.secret_refs import LOCAL_PATH, SecretRef, find_refs, refs_of
from daemon.cli.dry_walls import look_at_walls, mounts
from daemon.cli.output import print_json, printable
from daemon.cli.remote_commands import remote_commands
from daemon.cli.run_local_place import CONTAINER, Place
from daemon.cli.run_local_secrets import look_up_secrets
from daemon.cli.verdict import RUNNER_FAILED
from sandbox.masking.floors import is_secret_name
from sandbox.masking.masker import Masker

if TYPE_CHECKING:
    from daemon.cli.secret_search import SecretSearch

SECRET_MISSING = 8
FOUND, MISSING = "found", "missing"
ASKED = "asked for at the start"
NOT_CHECKED = "not checked: the secret store is locked (--check-secrets asks for its password)"


def dry_run(place: Place, search: SecretSearch, *, check_secrets: bool, as_json: bool) -> int:
    """Print a job, the state of its secrets and of its container.

    Returns the exit code: 8 if a secret is missing for certain, 125 if there can be no container and nothing may take
    its place, or no sandbox that the job accepts.

    Raises:
        UsageError, WrongPasswordError, DamagedSecretStoreError, Interrupted: As ``look_up_secrets``.
    """
    spec = place.spec
    refs = refs_of(spec)
    values, _ = look_up_secrets(refs, search, may_ask=check_secrets)
    states = {ref: FOUND if ref in values else _state(ref, search) for ref in refs}
    masker = Masker()
    for name, value in {**_presumed(spec.env), **{str(ref): values[ref] for ref in values}}.items():
        masker.add(name, value)
    looked_at = {
        "container": _container(place),
        "walls": None if place.kind == CONTAINER else look_at_walls(place),
        "mounts": mounts(spec, "image" if place.kind == CONTAINER else "host"),
        "remote_commands": remote_commands(spec.argv),
    }
    document = masked_tree(asdict(spec) | looked_at, masker)
    document["secrets"] = [
        {"ref": str(ref), "state": state.partition(":")[0]} for ref, state in states.items()
    ]
    if as_json:
        print_json(document)
    else:
        _print(document, {str(ref): state for ref, state in states.items()})
    if MISSING in states.values():
        return SECRET_MISSING
    return RUNNER_FAILED if _is_impossible(document) else 0


def _container(place: Place) -> dict[str, Any] | None:
    """Return what is known of the container; None where the job runs in none."""
    if place.kind != CONTAINER:
        return None
    from daemon.cli.dry_container import look_at_container  # noqa: PLC0415 - where there is an engine

    env = place.spec.env
    named = [name for name, value in env.items() if find_refs({name: value})]
    return look_at_container(place, {*named, *_presumed(env)})


def _is_impossible(document: dict[str, Any]) -> bool:
    """Tell whether the command could run nowhere."""
    if document["walls"] is not None:
        return bool(document["walls"]["problem"])
    if document["sandbox"]["fallback"] in ("ask", "allow"):
        return False
    from daemon.cli.dry_container import UNUSABLE  # noqa: PLC0415 - as above

    return document["container"]["image"]["state"] in UNUSABLE


def _state(ref: SecretRef, search: SecretSearch) -> str:
    """Return what is known of a reference without a value."""
    if search.store is None and search.has_store() and ref.path != LOCAL_PATH:
        return NOT_CHECKED
    return ASKED if ref.path == LOCAL_PATH and search.ask else MISSING


def _presumed(env: Mapping[str, str]) -> dict[str, str]:
    """Return the values of the file that are secrets by the names of their variables; a reference is none."""
    return {
        name: value
        for name, value in env.items()
        if is_secret_name(name) and not find_refs({name: value})
    }


def masked_tree(node: Any, masker: Masker) -> Any:
    """Return a tree with every text masked."""
    if isinstance(node, str):
        return masker.mask_text(node)
    if isinstance(node, Mapping):
        return {key: masked_tree(value, masker) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [masked_tree(value, masker) for value in node]
    return node


def _print(document: dict[str, Any], states: dict[str, str]) -> None:
    sandbox = document["sandbox"]
    lines = [
        ("name", document["name"]),
        ("command", shlex.join(document["argv"])),
        ("directory", document["job_dir"] or document["code_dir"]),
        ("source", _source_text(document["source"])),
        ("ci source", _source_text(document["ci_source"])),
        ("sandbox", _sandbox_text(sandbox)),
        ("time-out", f"{document['timeout_s']:g} s"),
        *(("variable", f"{name}={value}") for name, value in document["env"].items()),
        *(("secret", f"{ref}  {state}") for ref, state in states.items()),
        *_container_lines(document["container"]),
        *_walls_lines(document["walls"]),
        *(("mount", text) for text in document["mounts"]),
        *(("remote", f"{text} acts beyond this host") for text in document["remote_commands"]),
    ]
    for label, text in lines:
        print(f"{label + ':':11} {printable(text)}")


def _sandbox_text(sandbox: dict[str, Any]) -> str:
    if sandbox["kind"] == CONTAINER:
        return f"container, network {sandbox['network']}, fallback {sandbox['fallback']}"
    return f"at least {sandbox['min']}, network {sandbox['network']}"


def _container_lines(container: dict[str, Any] | None) -> list[tuple[str, str]]:
    if container is None:
        return []
    return [("image", container["image"]["text"]), ("equivalent", container["docker_run"])]


def _walls_lines(walls: dict[str, Any] | None) -> list[tuple[str, str]]:
    if walls is None:
        return []
    held = f", without {', '.join(walls['walls_not_held'])}" if walls["walls_not_held"] else ""
    tier = [("tier", walls["tier"] + held)] if walls["tier"] else []
    return [*tier, *([("problem", walls["problem"])] if walls["problem"] else [])]


def _source_text(source: dict[str, Any]) -> str:
    words = (source["kind"], source["path"], source["url"], source["ref"], source["credentials"])
    return " ".join(word for word in words if word)
