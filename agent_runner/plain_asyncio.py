"""Imports asyncio without TLS, for the long-lived processes: they speak it, if at all, through gRPC, which has its own.

asyncio is made to work where Python was built without ssl. Loading OpenSSL for it would cost each process
several megabytes and a tenth of its start. Imported before anything that imports asyncio.
"""

from __future__ import annotations

import sys
from importlib import import_module

if "asyncio" not in sys.modules and "ssl" not in sys.modules:
    # None makes an import fail, and only asyncio is to find it so.
    sys.modules["ssl"] = None  # type: ignore[assignment] # that is what the import system takes
    try:
        import_module("asyncio")
    finally:
        del sys.modules["ssl"]
