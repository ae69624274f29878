"""A registry of images in this process: enough of its protocol for an engine to fetch one image."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.contract.engine_keeper import busybox_root

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
UNKNOWN = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'


@dataclass
class Registry:
    """What it serves, and what it was asked for."""

    port: int = 0
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Return the image's name without a tag."""
        return f"127.0.0.1:{self.port}/team/tool"

    def put(self, tag: str, *env: str) -> str:
        """Offer an image under a tag and return its digest."""
        roots = [busybox_root(), one_file("version", os.urandom(32))]
        layers = [gzip.compress(root, 1, mtime=0) for root in roots]
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Env": list(env)},
                "rootfs": {"type": "layers", "diff_ids": [*map(digest, roots)]},
            }
        ).encode()
        self.blobs |= {digest(blob): blob for blob in (*layers, config)}
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": described("application/vnd.docker.container.image.v1+json", config),
                "layers": [described(LAYER, layer) for layer in layers],
            }
        ).encode()
        self.manifests |= {tag: manifest, digest(manifest): manifest}
        return digest(manifest)


def one_file(name: str, content: bytes) -> bytes:
    """Return an archive of one file."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def digest(data: bytes) -> str:
    """Return the name of some content."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def described(kind: str, data: bytes) -> dict[str, object]:
    """Return how a manifest names some content."""
    return {"mediaType": kind, "size": len(data), "digest": digest(data)}


@contextmanager
def running_registry() -> Iterator[Registry]:
    """Yield a registry on the loopback, which engines take without TLS."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            registry.asked.append(self.path)
            place, _, name = self.path.rpartition("/")
            kind = "application/octet-stream"
            if self.path == "/v2/":
                body: bytes | None = b"{}"
            elif place.endswith("/manifests"):
                body, kind = registry.manifests.get(name), MANIFEST
            else:
                body = registry.blobs.get(name)
            status = 200 if body is not None else 404
            body = UNKNOWN if body is None else body
            self.send_response(status)
            self.send_header("Content-Type", kind if status == 200 else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", digest(body))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - by the library

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
