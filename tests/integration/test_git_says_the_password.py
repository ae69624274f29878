"""A git server that repeats a password: whatever git makes of it, and wherever its words are cut, no part of it is told."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent_runner.errors import SourceError
from agent_runner.job_spec import SourceSpec
from tests.integration.sources import Desk

PASSWORD = "Qv7-loud-" + "k3" * 12


@contextmanager
def loud_server(padding: int) -> Iterator[str]:
    """Serve nobody, and say the password behind so many characters."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Authorization", "").removeprefix("Basic ")
            said = base64.b64decode(given).partition(b":")[2] if given else b"who?"
            body = b"x" * padding + b" refused: " + said + b"\n"
            self.send_response(403 if given else 401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/repo"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    "padding", [0, 270, 16360], ids=["whole", "cut at its end", "cut at its start"]
)
@pytest.mark.parametrize("credentials", [PASSWORD, f"me:{PASSWORD}"], ids=["token", "user"])
async def test_no_part_of_a_password_is_in_the_message(
    tmp_path: Path, padding: int, credentials: str
) -> None:
    """The message of a failure is cut only after the password is hidden in it."""
    with loud_server(padding) as url:
        source = SourceSpec(kind="git", url=url, credentials="x")
        with pytest.raises(SourceError) as raised:
            await Desk(tmp_path / "desk").prepare(source, source_credentials=credentials)

    text = str(raised.value)
    assert "git fetch failed" in text
    assert not [at for at in range(len(PASSWORD) - 5) if PASSWORD[at : at + 6] in text]
