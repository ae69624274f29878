"""Secrets in clear text, for ``export --plaintext`` and ``import``: ``{path: {key: value}}``.

A value is a text, or ``{"v": …, "enc": "base64"}`` where it is not UTF-8. What ``export`` writes has these below ``secrets``, beside a ``format``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agent_runner.secret_names import KEY, PATH
from daemon.errors import UsageError
from daemon.secrets.store.names import KEY_RULE, PATH_RULE, SecretName
from daemon.secrets.store.stored_secret import StoredSecret, from_json

PLAIN_FORMAT = "runner-secrets-plaintext"
PLAIN_VERSION = 1
_MAX_NAMED = 10


def plain_document(secrets: Mapping[SecretName, StoredSecret]) -> bytes:
    """Return the document of an export in clear text; the caller keeps it private."""
    tree: dict[str, dict[str, Any]] = {}
    for name, secret in sorted(secrets.items()):
        text = secret.reveal_text()
        entry = secret.to_json()
        value = {"v": entry["v"], "enc": entry["enc"]} if text is None else text
        tree.setdefault(name.path, {})[name.key] = value
    document = {"format": PLAIN_FORMAT, "version": PLAIN_VERSION, "secrets": tree}
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def parse_plain(document: Mapping[str, Any]) -> dict[SecretName, bytes]:
    """Return the values of a document: one that ``export`` has written, or the bare tree.

    Raises:
        ValueError: It is malformed; the text holds no value.
        UsageError: Names in it do not follow the grammar; lists them.
    """
    if document.get("format") != PLAIN_FORMAT:
        return parse_tree(document)
    if document.get("version") != PLAIN_VERSION or not isinstance(document.get("secrets"), dict):
        raise ValueError("it was written by a newer runner, or changed")
    return parse_tree(document["secrets"])


def parse_tree(tree: Mapping[str, Any]) -> dict[SecretName, bytes]:
    """Return the values of ``{path: {key: value}}``.

    Raises:
        ValueError: It is something else; the text holds no value.
        UsageError: Names in it do not follow the grammar; lists them.
    """
    values, wrong = {}, []
    for path, keys in tree.items():
        if not isinstance(keys, Mapping):
            raise ValueError("expected {path: {key: value}}")  # noqa: TRY004 - of the content
        for key, value in keys.items():
            if PATH.fullmatch(path) and KEY.fullmatch(key):
                values[SecretName(path, key)] = _value(value)
            else:
                wrong.append(ascii(f"{path}:{key}"))
    if wrong:
        more = f" and {len(wrong) - _MAX_NAMED} more" if len(wrong) > _MAX_NAMED else ""
        raise UsageError(
            f"names that no secret can have: {', '.join(wrong[:_MAX_NAMED])}{more}; "
            f"a path is {PATH_RULE}, a key {KEY_RULE}"
        )
    return values


def _value(value: Any) -> bytes:
    entry = {"v": value, "enc": "utf-8"} if isinstance(value, str) else value
    if not isinstance(entry, Mapping):
        raise ValueError("a value that is no text")  # noqa: TRY004 - of the content
    return from_json(entry).reveal()
