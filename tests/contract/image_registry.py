"""A registry of images in this process: enough of its protocol for an engine to fetch one image."""

from __future__ import annotations

import base64
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
DENIED = b'{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}'
UNKNOWN = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'


@dataclass
class Registry:
    """What it serves, and what it was asked for."""

    port: int = 0
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    login: tuple[str, str] | None = None
    """The name and the password that it wants to see; None serves everybody."""
    by_token: bool = False
    """Whether it wants a token, which it gives for the password, as the big ones do."""
    token: str = field(default_factory=lambda: os.urandom(8).hex())

    def admits(self, header: str) -> bool:
        """Tell whether what a request says of its sender is enough."""
        if self.login is None:
            return True
        return header == (f"Bearer {self.token}" if self.by_token else self._basic())

    def challenge(self) -> str:
        """Return what it says to who is not admitted."""
        return (
            f'Bearer realm="http://127.0.0.1:{self.port}/token",service="registry"'
            if self.by_token
            else 'Basic realm="registry"'
        )

    def gives_token(self, header: str) -> bool:
        """Tell whether the sender of a request may have the token."""
        return header == self._basic()

    def _basic(self) -> str:
        text = ":".join(self.login or ())
        return f"Basic {base64.b64encode(text.encode()).decode()}"

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
            said = self.headers.get("Authorization", "")
            if self.path.startswith("/token"):
                token = json.dumps({"token": registry.token}).encode()
                self._answer(200 if registry.gives_token(said) else 401, token)
                return
            if not registry.admits(said):
                self._answer(401, DENIED)
                return
            kind = "application/octet-stream"
            if self.path == "/v2/":
                body: bytes | None = b"{}"
            elif place.endswith("/manifests"):
                body, kind = registry.manifests.get(name), MANIFEST
            else:
                body = registry.blobs.get(name)
            status = 200 if body is not None else 404
            self._answer(status, UNKNOWN if body is None else body, kind)

        def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", registry.challenge())
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
