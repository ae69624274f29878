"""Imports gRPC without what it and protobuf load beside what they use: 1.2 MB and some 15 ms of CPU of each process that speaks it.

- ``typing_extensions``, of which gRPC wants what ``typing`` has.
- The messages in pure Python with all that belongs to them, beside those in C. They come when somebody looks into them, as
  protobuf itself does where it has no C.

Imported before anything that imports gRPC or protobuf; it brings ``plain_asyncio``, because gRPC imports asyncio. Where another
version wants more, that is imported as ever.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import typing
from importlib import import_module

import agent_runner.plain_asyncio  # noqa: F401

_MESSAGES = "google.protobuf.internal.python_message"


def _import_grpc() -> None:
    sys.modules["typing_extensions"] = typing
    try:
        with contextlib.suppress(ImportError):  # it wants what only the real one has: see below
            import_module("grpc")
    finally:
        del sys.modules["typing_extensions"]


def _put_off(name: str) -> None:
    """Import a module when its first attribute is asked for; ``importlib.util.LazyLoader`` says how."""
    spec = importlib.util.find_spec(name)  # imports the packages that it is in
    if spec is None or spec.loader is None:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    package, _, own_name = name.rpartition(".")
    # Else `from package import module` would ask the module whether it is there.
    setattr(sys.modules[package], own_name, module)


if "typing_extensions" not in sys.modules:
    _import_grpc()
if _MESSAGES not in sys.modules:
    _put_off(_MESSAGES)
import_module("grpc")
