"""JobService seen from the CLI: blocking calls, plain values out, one clear error each.

grpc is imported by this package, and this package only by the commands that call the server.
"""

from __future__ import annotations

import agent_runner.plain_grpc  # noqa: F401 - before whatever imports gRPC or protobuf
