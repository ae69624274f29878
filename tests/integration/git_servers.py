"""Real repositories, and a real git server: ``git http-backend`` behind a small HTTP server, with or without a password."""

from __future__ import annotations

import base64
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_IDENTITY = (
    "-c",
    "user.name=t",
    "-c",
    "user.email=t@example.com",
    "-c",
    "protocol.file.allow=always",
)
ENV = {
    "PATH": os.defpath,
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *_IDENTITY, *arguments], cwd=folder, env=ENV, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


class Repository:
    """A repository with a work tree, to which a test commits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        git(path, "init", "--quiet", "--initial-branch=main")

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def commit(self, **files: str) -> str:
        """Commit files, by their names with ``__`` for a slash; return the commit id."""
        for name, text in files.items():
            path = self.path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        git(self.path, "add", "--all", "--force")
        git(self.path, "commit", "--quiet", "--allow-empty", "-m", "m")
        return self.head()

    def head(self) -> str:
        return git(self.path, "rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        return git(self.path, *arguments)


@dataclass
class HttpServer:
    """What serves the repositories below one folder."""

    port: int
    user: str = ""
    password: str = ""
    requests: list[str] = field(default_factory=list)
    large: list[str] = field(default_factory=list)
    """Objects of git-lfs that were sent."""
    sent_bytes: int = 0
    hold: threading.Event = field(default_factory=threading.Event)
    """Cleared to let every pack wait."""

    def url(self, repository: Repository, user: str = "") -> str:
        return f"http://{user and user + '@'}127.0.0.1:{self.port}/{repository.path.name}"


class _GitServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, root: Path, facts: HttpServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.facts = facts
        facts.port = self.server_address[1]

    def admits(self, authorization: str) -> bool:
        """Tell whether a request may be served."""
        pair = f"{self.facts.user}:{self.facts.password}"
        expected = base64.b64encode(pair.encode()).decode()
        return not self.facts.password or authorization == f"Basic {expected}"


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers as git over HTTP does, with or without a password."""

    server: _GitServer

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self._serve(body)

    def _serve(self, body: bytes) -> None:
        self.server.facts.requests.append(self.path)
        if not self.server.admits(self.headers.get("Authorization", "")):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if body:
            self.server.facts.hold.wait(60)
        path, _, query = self.path.partition("?")
        if "/lfs/" in path:
            self._serve_large(path, body)
            return
        self._serve_git(path, query, body)

    def _serve_git(self, path: str, query: str, body: bytes) -> None:
        env = ENV | {
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=env, capture_output=True, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = [line.partition(": ")[::2] for line in head.decode().split("\r\n")]
        status = next((value for name, value in headers if name == "Status"), "200")
        self.server.facts.sent_bytes += len(content)
        self.send_response(int(status.split()[0]))
        for name, value in headers:
            if name and name != "Status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _serve_large(self, path: str, body: bytes) -> None:
        """Answer as a server of git-lfs does: where each object is, then the object."""
        if path.endswith("/batch"):
            at = f"http://127.0.0.1:{self.server.facts.port}/lfs/"
            objects = [
                {**one, "actions": {"download": {"href": at + one["oid"]}}}
                for one in json.loads(body)["objects"]
            ]
            content = json.dumps({"transfer": "basic", "objects": objects}).encode()
        else:
            (found,) = self.server.root.glob(f"*/.git/lfs/objects/*/*/{path.rpartition('/')[2]}")
            content = found.read_bytes()
            self.server.facts.large.append(path)
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.git-lfs+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


@contextmanager
def serve(root: Path, user: str = "", password: str = "") -> Iterator[HttpServer]:
    facts = HttpServer(0, user, password)
    facts.hold.set()
    server = _GitServer(root, facts)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield facts
    finally:
        facts.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
