"""`runner tokens`, and the CLI beyond the state directory: TLS, tokens and what is said when they are wrong."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.certificates import Authority
from tests.integration.grpc_server import TOKEN, Client, serving

CONSOLE_SCRIPT = Path(sys.executable).with_name("runner")
DEADLINE_S = 60


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass
class Host:
    """A home from which `runner` is called."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    async def runner(self, *words: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            CONSOLE_SCRIPT,
            *words,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.root), **self.env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(DEADLINE_S):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    async def refused(self, *words: str) -> Ended:
        """Run what must fail, and say why in one line."""
        ended = await self.runner(*words)
        assert ended.code != 0
        assert ended.out == ""
        assert ended.err.startswith("runner: ")
        assert ended.err.count("\n") == 1, ended.err
        return ended

    def file(self, name: str, content: str) -> str:
        path = self.root / name
        path.touch(mode=0o600)
        path.write_text(content)
        return str(path)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    home = tmp_path / "home"
    home.mkdir()
    return Host(home)


def state_dir(root: Path, server: Client) -> str:
    """Return a state directory that says what a daemon would of a server."""
    state = root / "state"
    state.mkdir()
    endpoints = {"endpoints": {"unix": f"unix:{server.config.socket}"}}
    (state / "endpoints.json").write_text(json.dumps(endpoints))
    (state / "token").write_text(TOKEN)
    return str(state)


@dataclass
class Web:
    """A server behind mutual TLS, its own host, and another one with a token of project web."""

    server: Client
    here: tuple[str, ...]
    """Words that name the state directory of the server."""
    there: Host
    secret: str
    own_certificate: Path


@pytest.fixture
async def web(tmp_path: Path, host: Host) -> AsyncIterator[Web]:
    authority = Authority(tmp_path)
    shown, own = authority.identity("server"), authority.identity("client")
    async with serving(
        tmp_path,
        tls_certificate=shown.certificate,
        tls_key=shown.key,
        tls_client_ca=authority.certificate,
    ) as server:
        here = ("--state-dir", state_dir(tmp_path, server))
        made = await host.runner(*here, "tokens", "create", "--role", "client", "--project", "web")
        secret = made.out.strip()
        assert secret.startswith("rnr_")
        assert secret not in made.err
        env = {
            "RUNNER_SERVER": f"localhost:{server.server.listen.rpartition(':')[2]}",
            "RUNNER_TOKEN_FILE": host.file("token", secret),
            "RUNNER_TLS_CA": str(authority.certificate),
            "RUNNER_TLS_CERTIFICATE": str(own.certificate),
            "RUNNER_TLS_KEY": str(own.key),
        }
        yield Web(server, here, Host(host.root, env), secret, own.certificate)


async def test_a_token_opens_its_project_from_another_host(host, web):
    """And nothing else; a server that is not the right one does not get it."""
    submitted = await web.there.runner("jobs", "submit", "--json", "--", "true")
    assert json.loads(submitted.out)["project"] == "web"
    other = ("jobs", "submit", "--project", "shop", "--", "true")
    assert "not for project 'shop'" in (await web.there.refused(*other)).err
    assert (await host.runner(*web.here, *other)).code == 0
    (seen,) = json.loads((await web.there.runner("jobs", "list", "--json")).out)
    assert seen["id"] == json.loads(submitted.out)["id"]
    found = await host.runner(*web.here, "jobs", "list", "--project", "shop", "--json")
    assert [job["project"] for job in json.loads(found.out)] == ["shop"]
    ended = await web.there.refused("tokens", "list")
    assert "may not call" in ended.err
    ended = await web.there.refused("--tls-ca", str(web.own_certificate), "jobs", "list")
    assert "no TLS with the job server" in ended.err


async def test_a_token_is_listed_and_revoked(host, web):
    """Without its secret, which was shown when it was made."""
    (listed,) = json.loads((await host.runner(*web.here, "tokens", "list", "--json")).out)
    assert (listed["role"], listed["projects"]) == ("client", ["web"])
    assert listed["last_use_time"] is None
    assert (await host.runner(*web.here, "tokens", "revoke", listed["id"])).code == 0
    ended = await web.there.refused("jobs", "list")
    assert "was revoked or has expired" in ended.err
    assert web.secret not in ended.err
    table = (await host.runner(*web.here, "tokens", "list")).out
    assert listed["id"] in table
    assert web.secret not in table
    ended = await host.refused(*web.here, "tokens", "revoke", "tok-0")
    assert ended.code == 3


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--server", "staging.example:50051"), 2, "in clear"),
        (("--server", "nothing"), 2, "must be HOST:PORT"),
        (("--server", "staging.example:1", "--tls-ca", "/nothing"), 2, "cannot read /nothing"),
        (("--server", "localhost:1", "--state-dir", "/nothing"), 2, "leave one out"),
    ],
)
async def test_a_server_that_cannot_be_asked(host, words, code, text):
    """Refused before anything is sent."""
    token = host.file("token", "rnr_0")
    ended = await host.refused("--token-file", token, *words, "jobs", "list")
    assert (ended.code, text in ended.err) == (code, True), ended.err


async def test_a_server_without_a_token(host):
    """That of the state directory is not sent to others."""
    ended = await host.refused("--server", "localhost:1", "jobs", "list")
    assert ended.code == 8


@pytest.mark.parametrize(
    "words",
    [
        ("--role", "client"),
        ("--role", "admin", "--project", "web"),
        ("--role", "client", "--project", "web", "--expires", "soon"),
        ("--role", "client", "--project", "web", "--expires", "0d"),
        ("--role", "boss"),
    ],
)
async def test_a_token_that_cannot_be_made(host, words):
    """Told without a server."""
    assert (await host.refused("tokens", "create", *words)).code == 2
