"""Which URLs and refs of a git repository a job may name. Pure: checked at each submit, before anything is run.

git takes more than a job may say: ``ext::`` runs a command, a name that begins with ``-`` is read as an option, and a
line break in a host name has been used to send a password elsewhere (CVE-2020-5260).
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

MAX_URL_CHARS = 2000
MAX_REF_CHARS = 250
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_SCP_LIKE = re.compile(
    r"(?P<user>[A-Za-z0-9._][A-Za-z0-9._-]*)@(?P<host>[A-Za-z0-9.-]+):(?P<path>.+)"
)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*")
_USER = re.compile(r"[A-Za-z0-9._~+%][A-Za-z0-9._~+%@-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_BAD_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,64}")

EXPECTED = "must be like https://host/path, ssh://user@host/path, user@host:path or file:///path"


class GitUrl(NamedTuple):
    """A URL that a job may name."""

    text: str
    scheme: str
    """``https``, ``http``, ``ssh`` or ``file``."""
    host: str
    """Lower case, with ``:PORT`` where the URL has one; empty for ``file``."""
    user: str = ""
    path: str = ""
    """Of the file system, for ``file``."""
    is_loopback: bool = False
    """Whether what is sent there stays on this host."""

    @property
    def origin(self) -> str:
        """Return what a password may be sent to: scheme, host and port."""
        return f"{self.scheme}://{self.host}"


def parse_url(text: str) -> GitUrl:
    """Return the parts of a URL.

    Raises:
        ValueError: It is none that a job may name; the text says what was expected and holds nothing of the URL.
    """
    _refuse_unsafe(text)
    if "://" not in text:
        return _scp_like(text)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"is no URL; it {EXPECTED}") from None
    if parts.scheme not in ("https", "http", "ssh", "file"):
        raise ValueError(f"has a scheme that is not supported; it {EXPECTED}")
    if parts.query or parts.fragment:
        raise ValueError("holds '?' or '#', which no repository needs")
    if parts.scheme == "file":
        return _file_url(parts)
    return _remote_url(text, parts, port)


def _refuse_unsafe(text: str) -> None:
    if not text:
        raise ValueError("must not be empty")
    if len(text) > MAX_URL_CHARS:
        raise ValueError(f"is longer than {MAX_URL_CHARS} characters")
    if _CONTROL.search(text) or _CONTROL.search(unquote(text)):
        raise ValueError("holds a backslash or a control character")
    if text.startswith("-"):
        raise ValueError("begins with '-', which git would read as an option")
    if " " in text and not text.startswith("file://"):
        raise ValueError("holds a space; write it as %20")
    if "::" in text.partition("/")[0]:
        raise ValueError(
            f"names a helper program of git, which a job may not choose; it {EXPECTED}"
        )


def check_ref(text: str) -> None:
    """Accept the name of a branch, a tag, a full ``refs/…`` or a commit id, and ``""`` for the default branch.

    Raises:
        ValueError: It is none; git-check-ref-format(1) has most of the rules.
    """
    if not text:
        return
    if len(text) > MAX_REF_CHARS:
        raise ValueError(f"is longer than {MAX_REF_CHARS} characters")
    if text.startswith("-"):
        raise ValueError("begins with '-', which git would read as an option")
    parts = text.split("/")
    if (
        _BAD_IN_REF.search(text)
        or text in ("@", "HEAD")
        or text.endswith(".")
        or any(not part or part.startswith((".", "-")) or part.endswith(".lock") for part in parts)
    ):
        raise ValueError("is not the name of a branch, a tag or a commit")


def is_commit(ref: str) -> bool:
    """Tell whether a ref is a whole commit id."""
    return _COMMIT.fullmatch(ref) is not None


def is_short_commit(ref: str) -> bool:
    """Tell whether a ref may be the beginning of a commit id."""
    return _SHORT_COMMIT.fullmatch(ref) is not None


def _scp_like(text: str) -> GitUrl:
    match = _SCP_LIKE.fullmatch(text)
    if match is None or match["path"].startswith("-") or not _HOST.fullmatch(match["host"]):
        raise ValueError(f"is no URL; it {EXPECTED}")
    return GitUrl(text, "ssh", match["host"].lower(), match["user"], match["path"])


def _file_url(parts: SplitResult) -> GitUrl:
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or path == "/":
        raise ValueError("names no file of this host: it must be like file:///path")
    # git takes what follows file:// as it is, escapes and all; and "//" has another meaning on other systems.
    return GitUrl(f"file://{path}", "file", "", "", path)


def _remote_url(text: str, parts: SplitResult, port: int | None) -> GitUrl:
    host = (parts.hostname or "").lower()
    if not _HOST.fullmatch(host):
        raise ValueError("names no host")
    if parts.password is not None or ":" in unquote(parts.username or ""):
        raise ValueError(
            "holds a password, which would show in `ps` and in the job's record; use source_credentials"
        )
    if parts.username is not None and not _USER.fullmatch(parts.username):
        raise ValueError("holds a user name that is none")
    if parts.path in ("", "/") or parts.path.lstrip("/").startswith("-"):
        raise ValueError("names no repository: a path must follow the host")
    shown = f"[{host}]" if ":" in host else host
    if port is not None:
        shown += f":{port}"
    user = unquote(parts.username or "")
    return GitUrl(text, parts.scheme, shown, user, is_loopback=host in _LOOPBACK)
