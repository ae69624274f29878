"""Server reflection that is loaded when somebody asks for it: it needs every descriptor of protobuf, and hardly anybody does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

SERVICE = "grpc.reflection.v1alpha.ServerReflection"
_PREFIX = "/grpc.reflection."


class LateReflection(grpc.GenericRpcHandler):
    """Handles the reflection service of one server; looked at for each method that the server sees first."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = services
        self._handlers: list[Any] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return the handler of a method of the reflection service, None for any other method."""
        if not handler_call_details.method.startswith(_PREFIX):
            return None
        if not self._handlers:
            self._load()
        found = (handler.service(handler_call_details) for handler in self._handlers)
        return next(filter(None, found), None)

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Take what the generated code gives to a server."""
        self._handlers.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Ignore the same handlers in another form."""

    def _load(self) -> None:
        from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc  # noqa: PLC0415

        servicer = reflection.aio.ReflectionServicer(self._services)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, self)
