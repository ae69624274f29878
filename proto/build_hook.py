"""Compile ``runner/v1/*.proto`` when the project is built or installed in place.

Generated code is not committed: it refuses runtimes older than its generator, so the generator is
pinned low in ``[build-system]`` and the output travels in the wheel and the sdist instead.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTO_ROOT = Path(__file__).resolve().parent


class ProtoBuildHook(BuildHookInterface[Any]):
    """Runs ``protoc`` with the Python, gRPC and typing plug-ins before each build."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate ``runner/v1/*_pb2*`` beside their sources."""
        generate(PROTO_ROOT)


def generate(root: Path) -> None:
    """Compile every proto below ``root/runner`` in place.

    Raises:
        RuntimeError: protoc refused a file; its own message is on stderr.
    """
    from grpc_tools import protoc

    # The typing plug-ins are console scripts of the build environment, which need not be on PATH.
    scripts = Path(sys.executable).parent
    os.environ["PATH"] = f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"
    well_known = Path(protoc.__file__).parent / "_proto"
    sources = sorted(str(path.relative_to(root)) for path in root.glob("runner/**/*.proto"))
    code = protoc.main(
        [
            "protoc",
            f"-I{root}",
            f"-I{well_known}",
            f"--python_out={root}",
            f"--grpc_python_out={root}",
            f"--mypy_out=quiet:{root}",
            f"--mypy_grpc_out=quiet:{root}",
            *sources,
        ]
    )
    if code != 0:
        raise RuntimeError(f"protoc exited with {code}")
    for path in root.glob("runner/v1/*_pb2_grpc.py*"):
        if "_service_" not in path.name:
            path.unlink()


if __name__ == "__main__":
    generate(PROTO_ROOT)
