"""The process of an agent-runner: ``python -P -m agent_runner --instance NONCE``, started by the daemon.

``daemon.foreground`` runs the same without a daemon: ``prepare``, then ``run``.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # a tenth of the imports, which make no garbage; see _announce

import agent_runner.plain_grpc  # noqa: F401 - before whatever imports asyncio, gRPC or protobuf

# isort: split
import asyncio
import contextlib
import itertools
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from agent_runner import handover as handovers
from agent_runner import process_logs
from agent_runner.config import AgentRunnerConfig
from agent_runner.errors import AgentRunnerError
from agent_runner.grpc_client import GrpcDaemonClient
from agent_runner.handover import Handover
from agent_runner.hardening import harden
from agent_runner.offering import Offering
from agent_runner.outcome import SandboxRecord
from agent_runner.registry_logins import RegistryLogins
from agent_runner.secret_refs import LOCAL_PATH, SecretRef
from agent_runner.secret_source import ClosableSource, DaemonSecrets
from agent_runner.worker import Worker
from agent_runner.workspace_claim import claim
from sandbox.base import Capabilities, SandboxProvider, Tier
from sandbox.errors import SandboxError
from sandbox.factory import open_configured
from sandbox.masking.masker import Masker
from sandbox.process import JOB_UMASK, apply_process_defaults

logger = logging.getLogger("agent_runner")

REPLACED = 7
"""The exit code, as of whatever finds its place taken: to be started again would only take the name back, for ever."""
ORPHANED_GRACE_S = 3.0
"""The daemon has died: everything must be gone within 10 s (DESIGN §2), so TERM is followed by KILL sooner."""
LOG_AFTER_S = 0.05
"""Between the readiness and the line about it in the log."""
TIER_TEXT = {
    Tier.CONTAINER: "container",
    Tier.BWRAP: "bubblewrap",
    Tier.LANDLOCK: "landlock",
    Tier.PLAIN: "none (plain)",
}


def main() -> int:
    """Run until the daemon tells to leave; return the exit code."""
    prepare()
    env = dict(os.environ)  # noqa: TID251 - the one read of this process
    try:
        handover = handovers.receive(env)
    except AgentRunnerError as error:
        print(f"agent-runner: {error}", file=sys.stderr)  # noqa: T201 - nobody else listens
        return 2
    secrets = DaemonSecrets(_gathered(handover), handover.secrets_fd)
    return run(env, handover, secrets, _masker(handover))


def prepare() -> None:
    """Make the process one that may hold secrets and start jobs; called first thing."""
    harden()
    os.umask(JOB_UMASK)


def run(env: Mapping[str, str], handover: Handover, secrets: ClosableSource, masker: Masker) -> int:
    """Run until told to leave; return the exit code. Called once per process.

    Args:
        env: Holds the configuration.
        handover: What was handed over; is told of the readiness and of the end.
        secrets: Where jobs get their values from; closed at the end.
        masker: Hides values in the log of this process.
    """
    process_logs.configure("agent-runner", masker.mask_text)
    try:
        config = AgentRunnerConfig.from_env(env)
        return asyncio.run(_serve(config, handover, secrets))
    except (AgentRunnerError, SandboxError) as error:
        logger.error("cannot run", extra={"action": "start_failed", "why": str(error)})  # noqa: TRY400
        handover.failed(str(error))
        return 1


def _gathered(handover: Handover) -> dict[SecretRef, str]:
    gathered = handover.payload["secrets"]
    return {SecretRef(LOCAL_PATH, name): value for name, value in gathered.items()}


def _masker(handover: Handover) -> Masker:
    masker = Masker()
    for name, value in [*handover.payload["secrets"].items(), ("token", handover.payload["token"])]:
        masker.add(name, value)
    return masker


async def _serve(config: AgentRunnerConfig, handover: Handover, secrets: ClosableSource) -> int:
    """Run until told to leave. Told before there is a worker, it gives up what it is doing and leaves."""
    apply_process_defaults()
    logins = RegistryLogins(config.containers.registries, secrets)
    offering = Offering(config.containers.local_projects, handover.status)
    provider = open_configured(config.get_sandbox_config(logins, offering.engine_away))
    starting = asyncio.ensure_future(_start(config, handover, provider, secrets, offering))
    _on_signals(handover, starting.cancel, starting.cancel)
    worker: Worker | None = None
    try:
        worker = await starting
        await worker.run()
    except asyncio.CancelledError:
        logger.info("told to leave before the start was done", extra={"action": "start_given_up"})
    finally:
        secrets.close()
        await provider.close()
        with contextlib.suppress(OSError):  # a run-local has its workspace in it
            config.workspace_dir.parent.rmdir()
    logger.info("stopped", extra={"action": "stopped"})
    return REPLACED if worker is not None and worker.replaced else 0


async def _start(
    config: AgentRunnerConfig,
    handover: Handover,
    provider: SandboxProvider,
    secrets: ClosableSource,
    offering: Offering,
) -> Worker:
    reaped = await provider.reap()
    if reaped:
        logger.warning(
            "leftovers removed", extra={"action": "leftovers_removed", "names": " ".join(reaped)}
        )
    capabilities = await provider.probe()
    try:
        claim(config)
    except OSError as error:
        logger.warning(
            "no claim on the workspaces", extra={"action": "not_claimed", "why": str(error)}
        )
    token = handover.payload["token"]
    incarnation = os.urandom(8).hex()
    client = GrpcDaemonClient(config.server, token, config.name, incarnation, config.projects)
    worker = Worker(
        config=config,
        client=client,
        provider=provider,
        sandbox=_record(capabilities),
        secrets=secrets,
        on_ready=lambda: _announce(config, capabilities, handover),
        offering=offering,
    )
    if handover.alone:  # the server may be away for days yet
        _collect_garbage()
    told = partial(_told, config, handover, worker, itertools.count(1))
    _on_signals(handover, told, lambda: worker.interrupt(ORPHANED_GRACE_S))
    return worker


def _record(capabilities: Capabilities) -> SandboxRecord:
    return SandboxRecord(
        kind=capabilities.kind,
        tier=capabilities.tier.label,
        walls_not_held=tuple(str(wall) for wall in capabilities.walls_not_held),
    )


def _told(
    config: AgentRunnerConfig, handover: Handover, worker: Worker, received: Iterator[int]
) -> None:
    """Drain, then cancel, then leave. Called for each signal; ``received`` counts them."""
    match next(received):
        case 1:
            handover.stopping()
            worker.drain()
            if config.drain_timeout_s is not None:
                loop = asyncio.get_running_loop()
                loop.call_later(config.drain_timeout_s, worker.interrupt, config.cancel_grace_s)
        case 2:
            worker.interrupt(config.cancel_grace_s)
        case _:
            worker.leave_now()


def _collect_garbage() -> None:
    """Let the collector run from now on, but not over what was imported. Called once all is, and harmless twice."""
    gc.freeze()
    gc.enable()


def _announce(config: AgentRunnerConfig, capabilities: Capabilities, handover: Handover) -> None:
    _collect_garbage()
    handover.ready(
        {
            "slots": config.slots,
            "sandbox": TIER_TEXT[capabilities.tier],
            "tier": capabilities.tier.label,
            "reason": capabilities.reason,
        }
    )
    # The masker compiles what it looks for when it sees its first text; the first job need not wait for that.
    asyncio.get_running_loop().call_later(LOG_AFTER_S, _log_readiness, config, capabilities)


def _log_readiness(config: AgentRunnerConfig, capabilities: Capabilities) -> None:
    logger.info(
        "agent-runner ready",
        extra={
            "action": "ready",
            "mode": config.mode,
            "endpoint": config.endpoint,
            "slots": config.slots,
            "sandbox": TIER_TEXT[capabilities.tier],
            "walls_not_held": " ".join(str(wall) for wall in capabilities.walls_not_held),
            "why_not_stronger": capabilities.reason,
        },
    )


def _on_signals(
    handover: Handover, told: Callable[[], object], orphaned: Callable[[], object]
) -> None:
    """Map TERM and the daemon's death to what they mean at this moment; called again when that changes."""
    loop = asyncio.get_running_loop()

    def daemon_died() -> None:
        loop.remove_reader(handover.life_fd)
        logger.error("the daemon has died; stopping", extra={"action": "daemon_died"})
        orphaned()

    loop.add_signal_handler(signal.SIGTERM, told)
    if handover.alone:
        loop.add_signal_handler(signal.SIGINT, told)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup(1)
            loop.add_signal_handler(signal.SIGHUP, told)
        return
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the daemon decides what a Ctrl-C means
    loop.add_reader(handover.life_fd, daemon_died)


if __name__ == "__main__":
    sys.exit(main())
