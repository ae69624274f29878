"""The grammar of what a secret is called: a path of segments, and a key. ASCII only, so that no two names look alike.

One place for references in jobs (``secret_refs``) and for the names in the store.
"""

from __future__ import annotations

import re

PATH = re.compile(r"[A-Za-z0-9_-]{1,64}(?:/[A-Za-z0-9_-]{1,64}){0,7}")
KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
