"""A gRPC server that counts the messages of a stream: the floor of P15. ``python -m benchmarks.messages SOCKET``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

SERVICE, METHOD = "bench.Lines", "Send"


async def count(requests: AsyncIterator[bytes], _context: Any) -> bytes:
    """Answer with the number of messages."""
    number = 0
    async for _ in requests:
        number += 1
    return str(number).encode()


async def send(socket: str, messages: int, size: int) -> float:
    """Return the seconds that it takes to send messages one by one until the server has counted them.

    Raises:
        RuntimeError: It counted another number.
    """
    message = b"x" * size
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        await channel.channel_ready()
        loop = asyncio.get_running_loop()
        start = loop.time()
        call: Any = channel.stream_unary(f"/{SERVICE}/{METHOD}")()
        for _ in range(messages):
            await call.write(message)
        await call.done_writing()
        counted = int(await call)
        elapsed = loop.time() - start
    if counted != messages:
        raise RuntimeError(f"{counted} messages arrived, not {messages}")
    return elapsed


async def serve(socket: Path) -> None:
    """Serve until killed."""
    server = grpc.aio.server()
    handlers: dict[str, Any] = {METHOD: grpc.stream_unary_rpc_method_handler(count)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
