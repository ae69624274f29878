"""The one gate of every call: who may call, whether the server still takes calls, and how errors leave it.

The token is checked before the handler is looked up, so an unknown method answers a stranger like a known one. Each
method is wrapped once and kept; after that a call costs one look at its metadata and one dictionary look-up.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc import StatusCode

from agent_runner.errors import AgentRunnerError
from daemon.errors import (
    DaemonError,
    RoleNotAllowedError,
    ShuttingDownError,
    TokenMissingError,
    UsageError,
)
from daemon.jobs.store import JobStore
from daemon.server.caller import CALLER, Caller
from daemon.server.job_scope import check_visible
from daemon.server.signals import Signals
from daemon.server.statuses import INTERNAL, Refusal, refusal
from daemon.server.token_book import TokenBook
from daemon.tokens.models import Role

logger = logging.getLogger(__name__)

# Generic to the type checkers only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"

HEALTH_PREFIX = "/grpc.health.v1.Health/"
OUR_PREFIX = "/runner."
ROLES = {
    "/runner.v1.JobService": frozenset({Role.CLIENT, Role.ADMIN}),
    "/runner.v1.AgentService": frozenset({Role.AGENT, Role.ADMIN}),
}
"""Who may call which service of ours; an admin alone may call any other."""
ADMINS = frozenset({Role.ADMIN})
UNREADABLE = object()
"""Stands for a request that is no message of its method, because gRPC itself would answer UNKNOWN without a reason."""
SCHEME = "bearer "


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Made once per server. Called for every call before its handler runs."""

    def __init__(self, tokens: TokenBook, store: JobStore, signals: Signals) -> None:
        self._tokens = tokens
        self._store = store
        self._signals = signals
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the handler of a call: the method's own, or one that refuses. Tells the method who calls it."""
        method = handler_call_details.method
        if method.startswith(HEALTH_PREFIX):
            return await continuation(handler_call_details)
        error = None
        try:
            # This is the task in which the method will run.
            CALLER.set(self._admit(handler_call_details))
        except DaemonError as objection:
            error = objection
        handler = self._handlers.get(method)
        if handler is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return _refusing(error, None) if error else None
            if method.startswith(OUR_PREFIX):
                handler = _wrapped(method, handler, self._tokens, self._store)
            self._handlers[method] = handler
        return _refusing(error, handler) if error else handler

    def _admit(self, call: grpc.HandlerCallDetails) -> Caller:
        caller = self._tokens.admit(_secret(call))
        method = call.method
        if method.startswith(OUR_PREFIX):
            service = method[: method.rfind("/")]
            if caller.role not in ROLES.get(service, ADMINS):
                raise RoleNotAllowedError(
                    f"a token of the role {caller.role} may not call {service[1:]}"
                )
        if self._signals.stopping:
            raise ShuttingDownError("the job server is stopping; repeat the call later")
        return caller


def _secret(call: grpc.HandlerCallDetails) -> str:
    for key, value in call.invocation_metadata:
        if key == "authorization":
            text = value if isinstance(value, str) else value.decode("latin-1")
            if text[: len(SCHEME)].lower() != SCHEME:
                raise TokenMissingError("the authorization metadata must be 'Bearer TOKEN'")
            return text[len(SCHEME) :]
    raise TokenMissingError(
        "the call carries no 'authorization: Bearer TOKEN' metadata; "
        "the token is in the server's token file, or issued by `runner tokens create`"
    )


def _refusing(error: DaemonError, handler: Handler | None) -> Handler:
    """Return a handler of the same shape that ends the call before it reads a request."""

    async def refuse(_: Any, context: Context) -> NoReturn:
        end = refusal(error)
        assert end is not None  # noqa: S101 - the errors above are in the table
        await _abort(context, end)

    if handler is None or not (handler.request_streaming or handler.response_streaming):
        return grpc.unary_unary_rpc_method_handler(refuse)
    if not handler.request_streaming:
        return grpc.unary_stream_rpc_method_handler(refuse)
    if not handler.response_streaming:
        return grpc.stream_unary_rpc_method_handler(refuse)
    return grpc.stream_stream_rpc_method_handler(refuse)


def _wrapped(method: str, handler: Handler, tokens: TokenBook, store: JobStore) -> Handler:
    deserializer = _lenient(handler.request_deserializer)
    if not handler.response_streaming:
        return grpc.unary_unary_rpc_method_handler(
            _wrapped_unary(method, handler.unary_unary, store),
            deserializer,
            handler.response_serializer,
        )
    if not handler.request_streaming:
        return grpc.unary_stream_rpc_method_handler(
            _wrapped_stream(method, handler.unary_stream, tokens, store),
            deserializer,
            handler.response_serializer,
        )
    return grpc.stream_stream_rpc_method_handler(
        _wrapped_stream(method, handler.stream_stream, tokens, store),
        deserializer,
        handler.response_serializer,
    )


def _wrapped_unary(method: str, behavior: Any, store: JobStore) -> Callable[..., Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        try:
            readable = _readable(request)
            await check_visible(store, CALLER.get(), readable)
            return await behavior(readable, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the wire gets a status
            await _abort(context, _ending(method, error))

    return call


def _wrapped_stream(
    method: str, behavior: Any, tokens: TokenBook, store: JobStore
) -> Callable[..., AsyncIterator[Any]]:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            # A client that leaves ends this generator; its inner one must end at once too,
            # not when the garbage collector finds it.
            if hasattr(request, "__aiter__"):
                readable: Any = _all_readable(request)
            else:
                readable = _readable(request)
                await check_visible(store, CALLER.get(), readable)
            async with aclosing(behavior(readable, context)) as responses:
                caller = CALLER.get()
                if not caller.token_id:
                    async for response in responses:
                        yield response
                    return
                with tokens.stream(caller) as stream:
                    while (response := await stream.next(responses)) is not None:
                        yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the wire gets a status
            await _abort(context, _ending(method, error))

    return call


def _lenient(deserialize: Any) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return UNREADABLE

    return read


def _readable(request: Any) -> Any:
    if request is UNREADABLE:
        raise UsageError("the request is not a message of this method: compare the .proto files")
    return request


async def _all_readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _readable(request)


def _ending(method: str, error: Exception) -> Refusal:
    end = refusal(error) if isinstance(error, DaemonError | AgentRunnerError) else None
    if end is not None and end.status is not StatusCode.DATA_LOSS:
        return end
    logger.error(
        "a call failed by a defect or a broken store",
        exc_info=error,
        extra={"action": "call_failed", "method": method},
    )
    return end or INTERNAL


async def _abort(context: Context, end: Refusal) -> NoReturn:
    await context.abort(end.status, end.message, end.trailers)
    raise AssertionError  # abort always raises; its type does not say so everywhere
