"""Gives the generated services to a server without telling it the name of each method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc


class GenericMethods:
    """Stands for a server where generated code adds a service.

    grpc.aio waits for the next call of each method that it knows by name, so it lets go of all of them (25 futures)
    and takes hold of them again at every call of one. For methods that are looked up it waits once.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Take what the generated code gives to a server."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Ignore the same handlers by name."""
