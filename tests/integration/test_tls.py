"""TLS and mutual TLS between real ends: who is let in, who is not, and what is said of that."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent_runner.channels import open_channel, tls_problem
from agent_runner.delivery import Delivery
from agent_runner.errors import InvalidConfigError as LinkError
from agent_runner.errors import NotAdmittedError, ServerUnavailableError
from agent_runner.grpc_calls import lease_from_pb
from agent_runner.grpc_client import GrpcDaemonClient
from agent_runner.outcome import EndReason, LogSummary, Outcome, SandboxRecord
from agent_runner.server_link import ServerLink
from agent_runner.spool import Spool
from daemon.errors import InvalidConfigError
from daemon.server.app import JobServer
from runner.v1 import job_pb2
from runner.v1 import job_service_pb2 as pb
from runner.v1 import job_service_pb2_grpc as rpc
from tests.integration.certificates import Authority, Identity
from tests.integration.grpc_server import AUTH, TOKEN, Client, FakeAgent, server_config, serving
from tests.ports import quiet_port

CALL_S = 20
RECORD = SandboxRecord(kind="filesystem", tier="bwrap")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server_identity(authority: Authority) -> Identity:
    return authority.identity("server")


def tls(identity: Identity, client_ca: Path | None = None) -> dict[str, Any]:
    """Return what a server's configuration has for TLS."""
    return {
        "tls_certificate": identity.certificate,
        "tls_key": identity.key,
        "tls_client_ca": client_ca,
    }


def link(server: Client, ca: Path | None, identity: Identity | None = None) -> ServerLink:
    """Return the way to a server by name."""
    return ServerLink(
        address=f"localhost:{server.server.listen.rpartition(':')[2]}",
        tls_ca=ca,
        tls_certificate=identity.certificate if identity else None,
        tls_key=identity.key if identity else None,
    )


async def answered(way: ServerLink) -> bool:
    """List jobs over a link; tell whether that was answered."""
    async with open_channel(way, ()) as channel:
        stub: Any = rpc.JobServiceStub(channel)
        response = await stub.ListJobs(pb.ListJobsRequest(), metadata=AUTH, timeout=CALL_S)
        return not response.jobs


async def failure(way: ServerLink) -> str:
    """Try the same where it must fail; return why."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await answered(way)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert TOKEN not in str(failed.value)
    return failed.value.details() or ""


async def test_server_with_tls_answers_who_trusts_it(tmp_path, authority, server_identity):
    """The certificate is checked and the token still needed; health is not; the unix socket needs no TLS."""
    async with serving(tmp_path, **tls(server_identity)) as server:
        way = link(server, authority.certificate)
        assert await answered(way)
        assert (await server.submit()).id
        async with open_channel(way, ()) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status
            stub: Any = rpc.JobServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.ListJobs(pb.ListJobsRequest())
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_renewed_certificates_count_at_once(tmp_path, caplog):
    """Whoever connects gets what is in the files now; what makes no sense there is logged, and changes nothing."""
    old, new = (Authority(tmp_path, name) for name in ("old", "new"))
    used = old.identity("server")
    clients = tmp_path / "clients.pem"
    clients.write_bytes(old.certificate.read_bytes())
    mine = {
        authority: authority.identity(f"client-{at}") for at, authority in enumerate((old, new))
    }
    async with serving(tmp_path, **tls(used, clients)) as server:
        assert await answered(link(server, old.certificate, mine[old]))
        renewed = new.identity("renewed")
        used.certificate.write_bytes(renewed.certificate.read_bytes())
        for _ in range(2):  # the certificate is there, and its key is not yet
            assert await answered(link(server, old.certificate, mine[old]))
        kept = [record for record in caplog.records if record.__dict__.get("action") == "tls_kept"]
        assert len(kept) == 1
        used.key.write_bytes(renewed.key.read_bytes())
        assert await answered(link(server, new.certificate, mine[old]))
        clients.write_bytes(new.certificate.read_bytes())
        assert await answered(link(server, new.certificate, mine[new]))
        await failure(link(server, new.certificate, mine[old]))


async def test_plaintext_does_not_reach_a_server_with_tls(tmp_path, server_identity):
    """There is no fall-back: a client without TLS gets nothing."""
    async with serving(tmp_path, **tls(server_identity)) as server:
        assert "Socket closed" in await failure(link(server, None))


async def test_client_refuses_a_server_that_is_not_the_right_one(tmp_path, authority):
    """Signed by somebody else, for another name, or expired: the token is not sent, and the reason is known."""
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    other, namesake = Authority(strangers, "other"), Authority(strangers)
    for number, (identity, why) in enumerate(
        (
            (other.identity("wrong-ca"), "nobody in tls_ca has signed its certificate"),
            (namesake.identity("namesake"), "nobody in tls_ca has signed its certificate"),
            (authority.identity("expired", expired=True), "its certificate has expired"),
            (authority.identity("other", ["else.example"]), "its certificate is for another name"),
        )
    ):
        root = tmp_path / str(number)
        root.mkdir()
        async with serving(root, **tls(identity)) as server:
            assert tls_problem(await failure(link(server, authority.certificate))) == why


async def test_client_with_tls_refuses_a_server_without(tmp_path, authority):
    """Somebody who answers in clear does not get the token either."""
    async with serving(tmp_path) as server:
        assert (
            tls_problem(await failure(link(server, authority.certificate)))
            == "it does not speak TLS"
        )


async def test_mutual_tls_wants_the_certificate_of_the_client(tmp_path, authority, server_identity):
    """None, a stranger's, or an expired one: the connection is closed before a token is looked at."""
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    config = tls(server_identity, authority.certificate)
    async with serving(tmp_path, **config) as server:
        ca = authority.certificate
        assert await answered(link(server, ca, authority.identity("client")))
        for identity in (
            None,
            Authority(strangers).identity("stranger"),
            authority.identity("expired-client", expired=True),
        ):
            assert "Socket closed" in await failure(link(server, ca, identity))


async def test_agent_runner_registers_over_mutual_tls(tmp_path, authority, server_identity):
    """Its client takes the same files; a wrong authority is told as such and is no end of the world for results."""
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    config = tls(server_identity, authority.certificate)
    async with serving(tmp_path, **config) as server:
        way = link(server, authority.certificate, authority.identity("agent"))
        client = GrpcDaemonClient(way, TOKEN, "agent", "1")
        assert (await client.register(1, {}, RECORD)).renew_s > 0
        await client.close()

        wrong = link(server, Authority(strangers).certificate)
        client = GrpcDaemonClient(wrong, TOKEN, "agent", "1")
        with pytest.raises(NotAdmittedError, match="nobody in tls_ca has signed") as refused:
            await client.register(1, {}, RECORD)
        assert isinstance(refused.value, ServerUnavailableError)
        assert TOKEN not in str(refused.value)
        await client.close()


async def test_agent_runner_without_tls_is_told_what_may_be_wrong(tmp_path, server_identity):
    """gRPC knows only that the connection was closed, and the agent-runner's log has what is told here."""
    async with serving(tmp_path, **tls(server_identity)) as server:
        client = GrpcDaemonClient(link(server, None), TOKEN, "agent", "1")
        with pytest.raises(ServerUnavailableError, match=r"may want TLS \(--tls-ca\)") as refused:
            await client.register(1, {}, RECORD)
        assert TOKEN not in str(refused.value)
        await client.close()


async def test_a_result_outlives_a_certificate_that_was_wrong(tmp_path, authority, server_identity):
    """What an agent-runner cannot deliver for that is kept, and delivered when somebody has mended it."""
    expired = authority.identity("expired-server", expired=True)
    listen = f"127.0.0.1:{quiet_port()}"
    async with serving(tmp_path, listen=listen, **tls(expired)) as server:
        way = link(server, authority.certificate)
        agent = await FakeAgent(server).connect()
        job_id = (await server.submit()).id
        lease = lease_from_pb((await agent.assignment()).lease)
        spool = Spool.create(tmp_path, lease)
        spool.write(b"done")
        client = GrpcDaemonClient(way, TOKEN, agent.name, agent.incarnation)
        outcome = Outcome(end_reason=EndReason.EXITED, exit_code=0, log=LogSummary(length=4))
        delivery = asyncio.create_task(Delivery(client, lease, spool, lambda: None).finish(outcome))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(delivery), 1)
    async with serving(tmp_path, listen=listen, **tls(server_identity)) as server:
        assert await asyncio.wait_for(delivery, CALL_S)
        assert (await server.get(job_id)).state == job_pb2.JOB_STATE_SUCCEEDED
    await client.close()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:50051", "example.org:1"])
async def test_server_refuses_to_listen_in_clear_beyond_loopback(tmp_path, listen):
    """Unless that is said."""
    with pytest.raises(InvalidConfigError, match=r"in clear.*--insecure"):
        await JobServer(server_config(tmp_path, listen=listen), TOKEN).start()


async def test_server_listens_in_clear_where_it_is_said(tmp_path):
    """It is the operator's word."""
    async with serving(tmp_path, listen="0.0.0.0:0", insecure=True) as server:
        assert await answered(link(server, None))


@pytest.mark.parametrize(
    "address", ["staging.example:50051", "192.0.2.1:1", "[2001:db8::1]:1", "localhost.example:1"]
)
def test_client_sends_no_token_in_clear_beyond_loopback(address):
    """It is refused before anything is dialled."""
    with pytest.raises(LinkError, match=r"in clear.*--insecure"):
        open_channel(ServerLink(address=address), ())
    ServerLink(address=address, insecure=True).check()


def damaged(tmp_path: Path, authority: Authority, what: str) -> dict[str, Any]:
    """Return a configuration with one thing wrong."""
    good, other = authority.identity(f"good-{what}"), authority.identity(f"other-{what}")
    config = tls(good)
    match what:
        case "missing":
            config["tls_certificate"] = tmp_path / "nothing"
        case "unreadable":
            config["tls_key"] = tmp_path
        case "not the key":
            config["tls_key"] = other.key
        case "every user":
            good.key.chmod(0o604)
        case "no certificate":
            good.certificate.write_text("nothing")
        case "empty" | "holds no certificate":
            (tmp_path / "ca").write_text("" if what == "empty" else "nothing")
            config["tls_client_ca"] = tmp_path / "ca"
        case "without a password":
            good.key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        case "needs both":
            config["tls_key"] = None
        case "contradict":
            config["insecure"] = True
        case _:
            raise AssertionError(what)
    return config


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("missing", "tls_certificate: cannot read .*nothing: No such file"),
        ("unreadable", "tls_key: cannot read .*: Is a directory"),
        ("not the key", "tls_key: .* is not the key of"),
        ("every user", "tls_key: every user can read"),
        ("no certificate", "tls_certificate: .* holds no certificate"),
        ("empty", "tls_client_ca: .* holds no certificate"),
        ("holds no certificate", "tls_client_ca: .* holds no certificate"),
        ("without a password", "tls_key: .* PEM without a password"),
        ("needs both", "needs both tls_certificate and tls_key"),
        ("contradict", "contradict each other"),
    ],
)
async def test_unusable_files_are_told_in_one_line(tmp_path, authority, what, text):
    """Before the server listens; the key itself is never in it."""
    config = server_config(tmp_path, **damaged(tmp_path, authority, what))
    with pytest.raises(InvalidConfigError, match=text) as refused:
        await JobServer(config, TOKEN).start()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "nothing",
        ":1",
        "host:0",
        "host:65536",
        "host:1x",
        "::1:1",
        "[::1]",
        "http://host:1",
        "a b:1",
        "a,b:1",
    ],
)
def test_an_address_that_is_none(address):
    """Nothing that gRPC could take for something else gets through."""
    with pytest.raises(LinkError, match="HOST:PORT"):
        ServerLink(address=address, insecure=True).check()


async def test_the_authorities_of_a_file_with_other_scripts_in_it(
    tmp_path, authority, server_identity
):
    """Bundles have comments, and names are not all ASCII."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes("# Főtanúsítvány\n".encode() + authority.certificate.read_bytes())
    async with serving(tmp_path, **tls(server_identity)) as server:
        assert await answered(link(server, bundle))
