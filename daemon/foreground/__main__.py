"""The process itself: ``python -P -m daemon.foreground ROLE --instance NONCE``, see ``launch``.

It does what the child of a daemon does, by the same code, and itself what the daemon does for a child: masks its
log, keeps its PID file, talks to the service manager, takes Ctrl-C for what TERM is.
"""

from __future__ import annotations

import gc

from agent_runner.hardening import harden

if __name__ == "__main__":
    harden()  # what was handed over is open already
    gc.disable()  # imports make no garbage; whoever is ready turns it on

import agent_runner.plain_asyncio  # noqa: F401 - before whatever imports asyncio

# isort: split
import logging
import os
import sys
from collections.abc import Mapping
from types import TracebackType

from agent_runner import process_logs
from agent_runner.errors import AgentRunnerError
from agent_runner.handover import receive
from daemon.foreground.service import ServiceHandover
from daemon.local.children import AGENT_RUNNER
from sandbox.masking.masker import Masker

logger = logging.getLogger("daemon.foreground")


def main(role: str) -> int:
    """Run until told to leave; return the exit code."""
    env = dict(os.environ)  # noqa: TID251 - the one read of this process
    try:
        handover = ServiceHandover(receive(env, alone=True), role)
    except (AgentRunnerError, KeyError) as error:
        print(f"{role}: {error}", file=sys.stderr)  # noqa: T201 - nobody else listens
        return 2
    masker = _masker(handover)
    process_logs.configure(role, masker.mask_text)
    sys.excepthook = _log_crash
    try:
        if role == AGENT_RUNNER:
            return _run_agent_runner(env, handover, masker)
        from daemon.server import __main__ as server  # noqa: PLC0415 - one of the two

        return server.run(env, handover)
    finally:
        handover.close()


def _run_agent_runner(env: Mapping[str, str], handover: ServiceHandover, masker: Masker) -> int:
    from agent_runner import __main__ as agent  # noqa: PLC0415 - one of the two
    from daemon.foreground.store_secrets import StoreSecrets  # noqa: PLC0415

    agent.prepare()
    secrets = StoreSecrets(handover.payload["store"], masker.add)
    return agent.run(env, handover, secrets, masker)


def _masker(handover: ServiceHandover) -> Masker:
    masker = Masker()
    masker.add("token", str(handover.payload["token"]))
    store = handover.payload.get("store") or {}
    if store.get("key"):
        masker.add("the key of the secret store", str(store["key"]))
    return masker


def _log_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    facts = {"action": "process_crashed"}
    logger.critical("the process crashed", extra=facts, exc_info=(kind, error, trace))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
