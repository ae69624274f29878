"""What looks like a secret although nobody registered it: token formats, credentials in headers and URLs, keys.

A rule has a prefix that stays, so that the log says what it was, and a body that is hidden. A floor on the body
keeps ``sk-learn`` and ``ghp_docs`` readable. There is no guessing by entropy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_PREFIX_BYTES = 96
"""No prefix is longer; so much of what was printed is looked at again with the next chunk."""
MAX_ANCHOR_BYTES = 24
LOOK_BEHIND_BYTES = 8
MAX_OPEN_BYTES = 16 << 10
"""Of a body that may yet turn out to be none, and of a key block."""

_QUOTE = rb"(?:\\?[\"'])?"
_GAP = rb"[ \t]{0,4}"
_WORD = rb"[A-Za-z0-9_]"
_DASHED = rb"[A-Za-z0-9_-]"
_VALUE = rb"[^\s\"'`\\<>]"
_PARAMETER = rb"[^\s&\"'`\\<>]"
_QUERY_KEYS = (
    *("private_token", "authenticity_token", "rss_token", "access_token", "client_secret"),
    *("x-amz-signature", "x-amz-credential", "x-amz-security-token"),
    *("api_key", "password", "sig"),
)
CORES = (
    *(b"sk-", b"xox", b"k_live_", b"k_test_"),
    *(b"uth", b"x-a", b"e-t", b"en=", b"t_s", b"i_k", b"rd=", b"ig="),
)
"""What an anchor is looked for by: it is shared by several, or short enough to be looked for in every case at once."""
_GITLAB = ("glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glagent-", "glsoat-", "gloas-")


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of secret. An anchor finds it, then the expressions decide."""

    anchors: tuple[bytes, ...]
    prefix: re.Pattern[bytes]
    """Fits from the anchor to the body; at most MAX_PREFIX_BYTES."""
    proof: re.Pattern[bytes]
    """What the body begins with if it is one."""
    body: re.Pattern[bytes]
    """The whole run that is hidden; fits the empty one too."""
    alone: bool = False
    """Whether it must not stand at the end of a word: the prefix is too common otherwise."""
    any_case: bool = False
    """Whether the anchors, which are in lower case then, may stand in any."""
    after: re.Pattern[bytes] | None = None
    """What must stand before the anchor, within LOOK_BEHIND_BYTES."""


def _rule(  # noqa: PLR0913 - the columns of a table
    anchors: tuple[str, ...],
    prefix: bytes,
    unit: bytes,
    floor: int,
    *,
    alone: bool = False,
    proof: bytes | None = None,
    after: bytes | None = None,
) -> Rule:
    return Rule(
        anchors=tuple(anchor.encode() for anchor in anchors),
        prefix=re.compile(prefix),
        proof=re.compile(unit + b"{%d}" % floor if proof is None else proof),
        body=re.compile(unit + b"*"),
        alone=alone,
        any_case=prefix.startswith(b"(?i:"),
        after=None if after is None else re.compile(after + rb"\Z"),
    )


def _token(prefix: str, unit: bytes, floor: int, *, alone: bool = False) -> Rule:
    return _rule((prefix,), re.escape(prefix).encode(), unit, floor, alone=alone)


RULES: tuple[Rule, ...] = (
    _rule(
        ("authorization",),
        rb"(?i:authorization)"
        + _QUOTE
        + _GAP
        + rb"[:=]>?"
        + _GAP
        + _QUOTE
        + rb"(?i:basic|bearer|token)[ \t]{1,4}",
        _VALUE,
        1,
    ),
    _rule(
        ("authorization",),
        rb"(?i:authorization)"
        + _QUOTE
        + _GAP
        + rb"[:=]>?"
        + _GAP
        + _QUOTE
        + rb"(?i:digest)[ \t]{1,4}",
        rb"[^\r\n]",
        1,
        proof=rb"[^ \t\r\n]",
    ),
    _rule(
        ("x-api-key", "private-token"),
        rb"(?i:x-api-key|private-token)" + _QUOTE + _GAP + rb"[:=]>?" + _GAP + _QUOTE,
        _VALUE,
        1,
        proof=rb"[^\s\"'`\\<>:=]",
    ),
    _rule(
        ("_authtoken",), rb"(?i:_authtoken)" + _QUOTE + _GAP + rb"[=:]" + _GAP + _QUOTE, _VALUE, 1
    ),
    _rule(
        tuple(f"{key}=" for key in _QUERY_KEYS),
        rb"(?i:" + "|".join(_QUERY_KEYS).encode() + rb")=",
        _PARAMETER,
        0,
        after=rb"(?:[?&]|&amp;|\\u0026)",
    ),
    _rule(tuple(f"gh{kind}_" for kind in "pousr"), rb"gh[pousr]_", _WORD, 20),
    _token("github_pat_", _WORD, 22),
    *(_token(prefix, rb"[A-Za-z0-9_.=-]", 16) for prefix in _GITLAB),
    _rule(("sk-ant-",), rb"sk-ant-(?:api|admin|oat|ort)[0-9]{2}-", _DASHED, 20),
    _rule(
        ("sk-proj-", "sk-svcacct-", "sk-admin-", "sk-or-v1-"),
        rb"sk-(?:proj|svcacct|admin|or-v1)-",
        _DASHED,
        20,
    ),
    _token("sk-", rb"[A-Za-z0-9]", 32, alone=True),
    _rule(("AKIA", "ASIA"), rb"A[KS]IA", rb"[A-Z2-7]", 16, alone=True),
    _token("AIza", _DASHED, 35, alone=True),
    _rule(tuple(f"xox{kind}-" for kind in "abposre"), rb"xox[abposre]-", rb"[A-Za-z0-9-]", 20),
    _token("npm_", rb"[A-Za-z0-9]", 36, alone=True),
    _token("rnr_", _DASHED, 40, alone=True),  # of this product itself
    _token("pypi-AgE", _DASHED, 50),
    _token("hf_", rb"[A-Za-z0-9]", 34, alone=True),
    _rule(
        ("sk_live_", "sk_test_", "rk_live_", "rk_test_"),
        rb"[sr]k_(?:live|test)_",
        rb"[A-Za-z0-9]",
        16,
        alone=True,
    ),
    _token("hvs.", _DASHED, 24, alone=True),
    _rule(
        ("eyJ",),
        rb"eyJ",
        rb"[A-Za-z0-9_.=-]",
        0,
        alone=True,
        proof=rb"[A-Za-z0-9_-]{8,8192}\.eyJ[A-Za-z0-9_-]{8}",
    ),
    _token("AGE-SECRET-KEY-1", rb"[A-Z0-9]", 58),
)

URL_AUTHORITY = re.compile(rb"[^\s/?#\"'`\\]*")
MIN_URL_TOKEN_BYTES = 20
"""A user without a password in a URL is a token if it is at least this long."""

KEY_BLOCK_ANCHOR = b"-----BEGIN "
KEY_BLOCK = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
KEY_BLOCK_BODY = re.compile(rb"[A-Za-z0-9+/=:,.*()\s\\-]*")
KEY_BLOCK_END = b"-----END "
MIN_KEY_BLOCK_BYTES = 64
"""Without an end in sight, so much must look like a key."""

WORD_END = re.compile(rb"(?<!\\)(?<!%[0-9A-Fa-f])[A-Za-z0-9]\Z")
"""The end of a word, but not of an escape such as ``\\n`` or ``%3D``."""
