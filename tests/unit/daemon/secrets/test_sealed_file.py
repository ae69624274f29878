"""The file of the store: bounds before any key is derived, and a header that the key is bound to."""

from __future__ import annotations

import base64
import functools
import itertools
import json

import pytest

from daemon.errors import DamagedSecretStoreError, SecretKeyStaleError, WrongPasswordError
from daemon.secrets.store.contents import PADDING_BYTES, Contents, parse_contents
from daemon.secrets.store.names import parse_name
from daemon.secrets.store.sealed_file import Header, SealedFile, parse_sealed
from daemon.secrets.store.store_key import StoreKey, make_key, unlock
from daemon.secrets.store.stored_secret import StoredSecret
from daemon.secrets.values import SecretValue

PASSWORD = SecretValue("correct horse")
SALT = bytes(range(16))
CANARY = "canary-value-7Qz"


@functools.cache
def sealed() -> SealedFile:
    header = Header(SALT, 1 << 14)
    key, check = make_key(header, PASSWORD)
    name = parse_name("a", "KEY")
    contents = Contents(3, {name: StoredSecret(CANARY.encode(), "2026-01-01T00:00:00Z")})
    return SealedFile(header, check, key.encrypt(contents.to_bytes()))


def document(**changes: object) -> bytes:
    tree = json.loads(sealed().to_bytes())
    kdf = {name[4:]: value for name, value in changes.items() if name.startswith("kdf_")}
    tree.update({name: value for name, value in changes.items() if not name.startswith("kdf_")})
    if kdf:
        tree["kdf"].update(kdf)
    return json.dumps(tree).encode()


def test_what_is_sealed_comes_back():
    """Through the text of the file, under the same password."""
    again = parse_sealed(sealed().to_bytes(), "FILE")
    contents = parse_contents(unlock(again, PASSWORD, "FILE").decrypt(again))

    assert contents.generation == 3
    assert {str(name): one.reveal() for name, one in contents.secrets.items()} == {
        "a:KEY": CANARY.encode()
    }


def test_the_file_shows_neither_names_nor_values():
    """And its size shows the size of the values only in steps."""
    data = sealed().to_bytes()

    assert b"KEY" not in data
    assert CANARY.encode() not in data
    assert len(Contents().to_bytes()) == len(Contents(12345).to_bytes()) == PADDING_BYTES


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": "other"}',
        document(version=0),
        document(version=True),
        document(version="1"),
        document(kdf_name="argon2"),
        document(kdf_n=131071),
        document(kdf_n=1 << 13),
        document(kdf_n=1 << 21),
        document(kdf_n=1 << 31),
        document(kdf_n=131072.0),
        document(kdf_n=True),
        document(kdf_r=16),
        document(kdf_p=0),
        document(kdf_p=5),
        document(kdf_salt="AAAA"),
        document(kdf_salt=7),
        document(kdf=[]),
        document(kdf=None),
        document(check=""),
        document(token=7),
        document(token="ü"),
        sealed().to_bytes().replace(b'"check"', b'"token"'),
        b" " * (8 << 20) + sealed().to_bytes(),
    ],
    ids=map(str, itertools.count()),
)
@pytest.mark.case("damage-empty", "tamper-duplicate-json-keys")
def test_a_file_out_of_bounds_is_damaged(data):
    """It is found so without a password, and costs no memory."""
    with pytest.raises(DamagedSecretStoreError):
        parse_sealed(data, "FILE")


@pytest.mark.case("version-newer")
def test_a_newer_format_says_so():
    """Before anything else of it is looked at."""
    with pytest.raises(DamagedSecretStoreError, match="written by a newer runner"):
        parse_sealed(document(version=2, kdf_name="argon2"), "FILE")


@pytest.mark.parametrize(
    "changed",
    [document(kdf_n=1 << 15), document(kdf_p=2), document(kdf_salt="A" * 22 + "==")],
)
@pytest.mark.case("tamper-kdf-lowered", "tamper-salt")
def test_a_changed_header_opens_nothing(changed):
    """It goes into the key: the right password is wrong for it."""
    with pytest.raises(WrongPasswordError, match="header was changed"):
        unlock(parse_sealed(changed, "FILE"), PASSWORD, "FILE")


@pytest.mark.case("tamper-bitflip-token")
@pytest.mark.parametrize("position", [0, 10, 60, -3])
def test_a_changed_token_is_damage(position):
    """The check value tells that the password is right."""
    original = sealed()
    token = bytearray(original.token)
    token[position] = ord("B") if token[position] != ord("B") else ord("C")
    changed = SealedFile(original.header, original.check, bytes(token))

    with pytest.raises(DamagedSecretStoreError, match="password is right"):
        unlock(changed, PASSWORD, "FILE").decrypt(changed)


@pytest.mark.case("payload-not-object")
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"secrets": {"a": "x"}}',
        b'{"generation": 1, "secrets": []}',
        b'{"generation": -1, "secrets": {}}',
        b'{"generation": true, "secrets": {}}',
        b'{"generation": 1, "secrets": {"a": "x"}}',
        b'{"generation": 1, "secrets": {"a": {"K": "x"}}}',
        b'{"generation": 1, "secrets": {"a": {"K": {"v": "x"}}}}',
        b'{"generation": 1, "secrets": {"a": {"K": {"v": "x", "enc": "rot13"}}}}',
        b'{"generation": 1, "secrets": {"a": {"K": {"v": "!", "enc": "base64"}}}}',
        b'{"generation": 1, "secrets": {"a": {"K": {"v": "\\ud800", "enc": "utf-8"}}}}',
        b'{"generation": 1, "secrets": {"../a": {"K": {"v": "x", "enc": "utf-8"}}}}',
    ],
)
def test_a_payload_that_is_none_is_damage(text):
    """Without a trace, and without what it holds."""
    with pytest.raises(DamagedSecretStoreError) as damaged:
        parse_contents(text)
    assert damaged.value.__suppress_context__


def test_the_password_is_normalised():
    """Typed on one keyboard, opened on another (NFC)."""
    header = Header(SALT, 1 << 14)
    composed = make_key(header, SecretValue("p\u00e4ss-w\u00f6rd"))[1]

    assert make_key(header, SecretValue("pa\u0308ss-wo\u0308rd"))[1] == composed


def test_a_key_opens_one_header():
    """Handed over a pipe it opens the same store; after a change of the password it says so."""
    file = sealed()
    handed = StoreKey.from_bytes(unlock(file, PASSWORD, "FILE").to_bytes())
    rotated = SealedFile(Header(SALT[::-1], 1 << 14), file.check, file.token)

    assert parse_contents(handed.decrypt(file)).generation == 3
    with pytest.raises(SecretKeyStaleError):
        handed.decrypt(rotated)
    with pytest.raises(ValueError, match="not the key"):
        StoreKey.from_bytes(b"short")


def test_keys_and_values_do_not_show_themselves():
    """In no representation, so in no log."""
    file = sealed()
    key = unlock(file, PASSWORD, "FILE")
    secret = StoredSecret(CANARY.encode(), "2026-01-01T00:00:00Z")

    shown = f"{key!r} {key} {secret!r} {PASSWORD!r} {Contents(1, {parse_name('a', 'K'): secret})!r}"
    assert CANARY not in shown
    assert "correct" not in shown
    assert base64.b64encode(key.to_bytes()[:32]).decode() not in shown
    with pytest.raises(TypeError):
        __import__("pickle").dumps(key)
