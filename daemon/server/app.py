"""The job server: its composition root, and how it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from agent_runner.grpc_wakeups import heard_at_once
from daemon.artifacts.blob_store import BlobStore
from daemon.clock import Clock, SystemClock
from daemon.errors import StartFailedError
from daemon.jobs.log_files import LogFiles
from daemon.jobs.sqlite_store import SqliteJobStore
from daemon.jobs.store import JobStore
from daemon.server import late_reflection
from daemon.server.agent_service import AgentServicer
from daemon.server.artifact_intake import ArtifactIntake
from daemon.server.artifact_reader import ArtifactReader
from daemon.server.completions import Completions
from daemon.server.config import ServerConfig
from daemon.server.dispatcher import Dispatcher
from daemon.server.endpoints import bind_socket, bind_tcp
from daemon.server.generic_methods import GenericMethods
from daemon.server.input_reader import InputReader
from daemon.server.inspection import Inspections
from daemon.server.interceptor import ServerInterceptor
from daemon.server.job_service import JobServicer
from daemon.server.late_reflection import LateReflection
from daemon.server.lease_keeper import LeaseKeeper
from daemon.server.log_reader import LogReader
from daemon.server.log_writer import LogWriter
from daemon.server.pending_limit import PendingLimit
from daemon.server.queue_keeper import QueueKeeper
from daemon.server.reaper import Reaper
from daemon.server.retention import Retention
from daemon.server.signals import Signals
from daemon.server.tls import server_credentials
from daemon.server.token_book import TokenBook
from daemon.server.token_service import TokenServicer
from runner.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    token_service_pb2,
    token_service_pb2_grpc,
)

logger = logging.getLogger(__name__)

SERVICES = tuple(
    service.full_name
    for file in (job_service_pb2, agent_service_pb2, token_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
SERVING = health_pb2.HealthCheckResponse.SERVING

MAX_MESSAGE_BYTES = 4 << 20
MAX_PENDING_CALLS = 50_000
"""A few hundred MB at worst; the clients are known by their token."""
OPTIONS = (
    # Without this a second server shares the port silently.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Calls that wait for their handler beyond these numbers are cancelled without a reason (1000 and 3000 otherwise).
    ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
    # To find out how wide the network is, gRPC pings whoever sends something after a rest: for every short job. What
    # it would find is fixed instead: a megabyte on its way per stream is 20 MB/s where an answer takes 50 ms.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 20),
    # A peer that vanished without a word is noticed within 40 s; a peer may ask every 10 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)
CHECK_TIMEOUT_S = 10.0


def open_store(config: ServerConfig, clock: Clock) -> JobStore:
    """Return the store of a configuration; the one place where a backend is chosen."""
    return SqliteJobStore(config.database, clock)


class JobServer:
    """One job server. ``start`` once, then ``stop``; ``stop`` is harmless at any time and twice."""

    def __init__(
        self,
        config: ServerConfig,
        token: str,
        store: JobStore | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.listen = config.listen
        """Where it listens on TCP; after ``start`` with the port that was taken."""
        self._config = config
        self._clock = clock or SystemClock()
        self._store = store or open_store(config, self._clock)
        self._logs = LogFiles(config.log_dir)
        self._blobs = BlobStore(config.artifact_dir)
        self._signals = Signals()
        self._completions = Completions()
        self._dispatcher = Dispatcher(
            store=self._store,
            logs=self._logs,
            signals=self._signals,
            completions=self._completions,
            lease_s=config.lease_s,
        )
        self._tokens = TokenBook(token, self._clock, self._completions)
        self._health = health.aio.HealthServicer()
        with heard_at_once():
            self._server = grpc.aio.server(
                interceptors=(ServerInterceptor(self._tokens, self._store, self._signals),),
                options=OPTIONS,
            )
        self._retention = Retention(
            store=self._store,
            logs=self._logs,
            blobs=self._blobs,
            signals=self._signals,
            clock=self._clock,
            limits=config.retention,
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the store and serve; returns when a health check over the own socket has succeeded.

        Raises:
            DaemonError: The store, the socket or the port cannot be used; nothing is left behind.
        """
        try:
            await self._store.open()
            self._blobs.open()
            await self._tokens.load(self._store.tokens)
            # The agent-runners could not renew while no server ran.
            await self._store.extend_all_leases(self._config.lease_s)
            await self._store.cap_backoffs()
            keeper = QueueKeeper(self._store, self._dispatcher, self._signals, self._clock)
            self._add_services()
            self.listen = bind_tcp(
                self._server,
                self._config.listen,
                server_credentials(self._config),
                insecure=self._config.insecure,
            )
            bind_socket(self._server, self._config.socket)
            await self._server.start()
            self._tasks = [
                asyncio.create_task(
                    Reaper(self._store, self._dispatcher, lease_s=self._config.lease_s).run()
                ),
                asyncio.create_task(keeper.run()),
            ]
            await self._check()
            for service in ("", *SERVICES):
                await self._health.set(service, SERVING)
            # It begins with a look at every file, which nobody who starts a job need wait for.
            self._tasks.append(asyncio.create_task(self._retention.run()))
        except BaseException:
            await self.stop(0)
            raise
        logger.info("serving", extra={"action": "server_started", "listen": self.listen})

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those under way end for up to ``grace_s``, and close the store."""
        await self._health.enter_graceful_shutdown()
        self._signals.stop()
        self._dispatcher.stop()
        await self._server.stop(grace_s)
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []
        await self._completions.drain()
        await self._store.close()
        self._logs.close()

    async def hurry(self) -> None:
        """End the calls that a ``stop`` waits for. Called while it waits; harmless at any time."""
        await self._server.stop(0)

    async def wait_disconnected(self) -> None:
        """Wait until no agent-runner is connected."""
        await self._dispatcher.wait_disconnected()

    async def _explain(
        self, log_reader: LogReader, inspections: Inspections, job_id: str
    ) -> job_service_pb2.ExplainJobResponse:
        # Late, because few ask, and everybody waits for the start.
        from daemon.server.explain import Explainer  # noqa: PLC0415

        explainer = Explainer(
            store=self._store,
            logs=self._logs,
            log_reader=log_reader,
            dispatcher=self._dispatcher,
            inspections=inspections,
            clock=self._clock,
        )
        return await explainer.explain(job_id)

    def _add_services(self) -> None:
        # A server as far as the generated code knows, whose types name grpc's own.
        methods: Any = GenericMethods(self._server)
        log_reader = LogReader(self._store, self._logs, self._signals)
        inspections = Inspections()
        job_service_pb2_grpc.add_JobServiceServicer_to_server(
            JobServicer(
                store=self._store,
                pending=PendingLimit(self._store, self._config.max_pending),
                log_reader=log_reader,
                dispatcher=self._dispatcher,
                signals=self._signals,
                completions=self._completions,
                explain=partial(self._explain, log_reader, inspections),
                artifacts=ArtifactReader(self._store, self._blobs),
            ),
            methods,
        )
        self._add_agent_service(methods, inspections)
        token_service_pb2_grpc.add_TokenServiceServicer_to_server(
            TokenServicer(self._tokens, self._clock), methods
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, methods)
        names = (*SERVICES, health.SERVICE_NAME, late_reflection.SERVICE)
        self._server.add_generic_rpc_handlers((LateReflection(names),))

    def _add_agent_service(self, methods: Any, inspections: Inspections) -> None:
        leases = LeaseKeeper(
            self._store,
            self._clock,
            self._dispatcher.renews,
            lease_s=self._config.lease_s,
            renew_s=self._config.renew_s,
        )
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(
            AgentServicer(
                config=self._config,
                store=self._store,
                log_writer=LogWriter(self._logs, self._signals, self._completions),
                dispatcher=self._dispatcher,
                inspections=inspections,
                artifacts=ArtifactIntake(self._store, self._blobs, leases),
                inputs=InputReader(self._store, self._blobs),
                leases=leases,
                signals=self._signals,
                completions=self._completions,
            ),
            methods,
        )

    async def _check(self) -> None:
        async with grpc.aio.insecure_channel(f"unix:{self._config.socket}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                await stub.Check(
                    health_pb2.HealthCheckRequest(), timeout=CHECK_TIMEOUT_S, wait_for_ready=True
                )
            except grpc.aio.AioRpcError as error:
                raise StartFailedError(
                    f"the job server does not answer on its own socket: {error.code().name}"
                ) from error
