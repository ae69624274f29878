"""Kills processes at named steps of the product. Loaded only by the processes of a fault test.

A harness copies this file into a folder of its own installation and puts that folder on PYTHONPATH of the command that
starts it (``tests.chaos.faults``). The product holds no hook: the interpreter imports this module because of its name,
and it wraps the functions of ``POINTS`` as their modules are loaded. Every call of one looks for ``armed.json`` beside
this file; without it nothing happens. A job never sees any of it: it gets neither PYTHONPATH nor the folder.

``armed.json``: ``{"point", "moment": "before" | "after", "victims": [process…], "state": folder of the PID files}``.
It is renamed to ``fired.json`` before the kills, so it fires once.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

POINTS = {
    # name: module, class, method
    "submit": ("daemon.jobs.sqlite_store", "SqliteJobStore", "submit"),
    "claim": ("daemon.jobs.sqlite_store", "SqliteJobStore", "claim"),
    "finish": ("daemon.jobs.sqlite_store", "SqliteJobStore", "finish"),
    "cancel": ("daemon.jobs.sqlite_store", "SqliteJobStore", "cancel"),
    "give-back": ("daemon.jobs.sqlite_store", "SqliteJobStore", "give_back"),
    "end-predecessors": ("daemon.jobs.sqlite_store", "SqliteJobStore", "end_predecessors"),
    "log-append": ("daemon.jobs.log_files", "LogFiles", "append"),
    "attempt": ("agent_runner.leased_attempt", "LeasedAttempt", "run"),
    "exec": ("sandbox.filesystem.sandbox", "FilesystemSandbox", "exec"),
    "spool-write": ("agent_runner.spool", "Spool", "write"),
    "seal": ("agent_runner.spool", "Spool", "seal"),
    "log-acknowledged": ("agent_runner.spool", "Spool", "acknowledge"),
    "spool-remove": ("agent_runner.spool", "Spool", "remove"),
    "collect": ("sandbox.filesystem.sandbox", "FilesystemSandbox", "collect"),
    "outputs-upload": ("agent_runner.outputs.upload", "OutputsUpload", "run"),
    "content-write": ("daemon.artifacts.blob_store", "IncomingBlob", "write"),
    "destroy": ("sandbox.filesystem.sandbox", "FilesystemSandbox", "destroy"),
}

_HERE = Path(__file__).parent
_ARMED = _HERE / "armed.json"


def reached(point: str, moment: str) -> None:
    """Kill who is to be killed here, this process last; called before and after every wrapped call."""
    try:
        plan = json.loads(_ARMED.read_bytes())
    except FileNotFoundError:
        return
    if (plan["point"], plan["moment"]) != (point, moment):
        return
    try:
        _ARMED.rename(_HERE / "fired.json")
    except FileNotFoundError:
        return  # another thread or process was first
    pids = [
        json.loads((Path(plan["state"]) / f"{v}.pid").read_bytes())["pid"] for v in plan["victims"]
    ]
    for pid in sorted(pids, key=lambda pid: pid == os.getpid()):
        os.kill(pid, signal.SIGKILL)


def wrapped(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that passes its point twice. One that did nothing (an empty list) has no after."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run(*args: Any, **kwargs: Any) -> Any:
            reached(point, "before")
            result = await function(*args, **kwargs)
            if result != []:
                reached(point, "after")
            return result

        return run

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        reached(point, "before")
        result = function(*args, **kwargs)
        reached(point, "after")
        return result

    return call


def patch(module: ModuleType) -> None:
    """Wrap the points of one module; a name that is gone raises, so that no point rots silently."""
    for point, (name, kind, method) in POINTS.items():
        if name == module.__name__:
            owner = getattr(module, kind)
            setattr(owner, method, wrapped(point, getattr(owner, method)))


def patch_after(loader: Any) -> None:
    """Let a loader wrap the points of the module that it executes."""
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        patch(module)

    loader.exec_module = exec_module


class PointFinder(MetaPathFinder):
    """Finds the modules that have points as the others do, and wraps them when they are executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if all(fullname != name for name, _, _ in POINTS.values()):
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            patch_after(spec.loader)
        return spec


sys.meta_path.insert(0, PointFinder())
