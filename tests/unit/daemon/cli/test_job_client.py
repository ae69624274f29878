"""What the client of the CLI makes of a server that goes away: no gap, no repeat, no job twice."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from daemon.errors import NotRunningError, RemoteError
from daemon.job_client.calls import UnavailableError
from daemon.job_client.client import MAX_BATCH, JobClient
from daemon.job_client.connection import local_server
from daemon.paths import StateDir
from runner.v1 import job_pb2
from runner.v1 import job_service_pb2 as pb
from tests.unit.daemon.cli.scripted_server import (
    ID,
    PENDING,
    RUNNING,
    SUCCEEDED,
    ScriptedServer,
    serve,
)

REASONS = ["SHUTTING_DOWN", "STORE_UNAVAILABLE", "LOG_NOT_WRITTEN", ""]


def nothing() -> None:
    return None


@pytest.fixture
def state() -> Iterator[StateDir]:
    # Not below pytest's own folder: its path would leave no room for a socket's name.
    root = Path(tempfile.mkdtemp(prefix="runner-"))
    made = StateDir(root, root)
    made.token.write_text("token")
    document = {"endpoints": {"unix": f"unix:{made.server_socket}"}}
    made.endpoints.write_text(json.dumps(document))
    yield made
    shutil.rmtree(root)


@pytest.fixture
def server(state) -> Iterator[ScriptedServer]:
    servicer = ScriptedServer()
    serving = serve(servicer, state.server_socket)
    yield servicer
    serving.stop(None).wait()


@pytest.fixture
def client(state, server) -> Iterator[JobClient]:
    with JobClient(partial(local_server, state), lambda: True, patience_s=10) as made:
        yield made


def text(pieces: Iterator[pb.ReadLogResponse]) -> bytes:
    return b"".join(piece.data for piece in pieces)


def later(seconds: float, do: Callable[[], Any]) -> threading.Timer:
    """Do something while the client waits; it may come before it waits, too."""
    timer = threading.Timer(seconds, do)
    timer.start()
    return timer


@pytest.mark.parametrize("reason", REASONS)
def test_a_log_goes_on_where_it_broke(server, client, reason):
    """Whatever reason a server has to be unavailable, the bytes before are not asked for again."""
    server.logs = [b"abcdefgh"]
    server.cuts = [(4, reason, nothing), (2, reason, nothing)]
    assert text(client.follow_log(ID, 0, 0)) == b"abcdefgh"
    assert [call for call in server.calls if call.startswith("ReadLog")] == [
        "ReadLog 1 0",
        "ReadLog 1 4",
        "ReadLog 1 6",
    ]


def test_later_attempts_follow_one_that_broke_in_its_middle(server, client):
    """While the server was away two more attempts came: each is shown whole, in order."""
    server.logs, server.running, server.state = [b"one."], True, RUNNING

    def happen() -> None:
        server.change(logs=[b"one.ONE.", b"two.", b"three."], running=False, state=SUCCEEDED)

    server.cuts = [(2, "SHUTTING_DOWN", happen)]
    assert text(client.follow_log(ID, 0, 0)) == b"one.ONE.two.three."


def test_an_attempt_is_not_shown_again_after_its_end(server, client):
    """The server goes away between the end of one attempt and the begin of the next."""
    server.logs, server.state = [b"one."], PENDING
    pieces = client.follow_log(ID, 0, 0)
    shown = b""
    for piece in pieces:
        shown += piece.data
        if piece.HasField("end"):
            break
    server.refusals = ["SHUTTING_DOWN", "", "SHUTTING_DOWN"]
    timer = later(0.5, lambda: server.change(logs=[b"one.", b"two."], state=SUCCEEDED))
    assert shown + text(pieces) == b"one.two."
    timer.join()


def test_a_queued_job_is_followed_from_its_first_attempt(server, client):
    """There is nothing to read yet, and no attempt is skipped."""
    server.state = PENDING
    timer = later(0.2, lambda: server.change(logs=[b"one.", b"two."], state=SUCCEEDED))
    assert text(client.follow_log(ID, 0, 0)) == b"one.two."
    timer.join()


def test_a_job_that_ends_without_an_attempt_has_no_log(server, client):
    """Cancelled while it was queued."""
    server.state = PENDING
    timer = later(0.2, lambda: server.change(state=job_pb2.JOB_STATE_CANCELLED))
    assert text(client.follow_log(ID, 0, 0)) == b""
    timer.join()


def test_one_attempt_is_one_attempt(server, client):
    """Who asks for a number gets that one, from the offset, also over a break."""
    server.logs = [b"one.", b"two.", b"three."]
    server.cuts = [(2, "", nothing)]
    assert text(client.follow_log(ID, 2, 1)) == b"wo."
    assert text(client.follow_log(ID, 0, 2)) == b"ree.", "without a number: the newest"
    with pytest.raises(RemoteError) as caught:
        text(client.follow_log(ID, 4, 0))
    assert caught.value.remote_reason == "ATTEMPT_NOT_FOUND"


def test_a_silence_costs_no_patience(state, server):
    """A stream that was open for longer than the patience breaks, and the server is waited for anew."""
    server.logs, server.running, server.state = [b""], True, RUNNING
    silent = threading.Event()

    def happen() -> None:
        silent.wait(1.5)
        server.change(logs=[b"one."], running=False, state=SUCCEEDED)
        server.refusals = ["SHUTTING_DOWN"]

    server.cuts = [(0, "SHUTTING_DOWN", lambda: silent.wait(0.6)), (0, "SHUTTING_DOWN", happen)]
    with JobClient(partial(local_server, state), lambda: True, patience_s=1) as client:
        assert text(client.follow_log(ID, 0, 0)) == b"one."


@pytest.mark.parametrize("reason", REASONS)
def test_waiting_goes_on_over_every_kind_of_unavailable(server, client, reason):
    """Refused calls and broken watches are repeated until the job has ended."""
    server.logs, server.state = [b""], RUNNING
    server.refusals = [reason] * 4
    timer = later(1.2, lambda: server.change(state=SUCCEEDED))
    assert list(client.wait([ID])) == [ID]
    timer.join()


def test_patience_is_bounded(state, server):
    """A server that stays away ends the waiting with its own words."""
    server.refusals = ["STORE_UNAVAILABLE"] * 1000
    with (
        JobClient(partial(local_server, state), lambda: True, patience_s=0.5) as client,
        pytest.raises(UnavailableError, match="as the test wants it") as caught,
    ):
        list(client.wait([ID]))
    assert caught.value.remote_exit_code == 3


@pytest.mark.parametrize("count", [1, 3])
def test_a_submit_is_repeated_with_the_same_ids(server, client, count):
    """Every job has a request id of its own, the same in each try, so that none is accepted twice."""
    server.logs = [b""]
    seen: list[list[str]] = []

    def refuse_once(name: str, context: Any) -> None:
        if name.startswith("Submit") and not seen:
            seen.append([])
            server.refusals = ["SHUTTING_DOWN"]
        original(name, context)

    original, server._enter = server._enter, refuse_once
    submitted = client.submit(pb.SubmitJobRequest(spec=job_pb2.JobSpec(argv=["true"])), count)
    ids = [request.request_id for request in server.requests]
    assert len(submitted) == len(ids) == len(set(ids)) == count
    assert all(ids)
    client.submit(pb.SubmitJobRequest(request_id="mine"))
    assert server.requests[-1].request_id == "mine"


def test_a_submit_fails_at_once_when_nothing_runs(state):
    """Stale endpoints of a dead installation are no reason to wait."""
    with (
        JobClient(partial(local_server, state), lambda: False, patience_s=3600) as client,
        pytest.raises(UnavailableError) as caught,
    ):
        client.submit(pb.SubmitJobRequest())
    assert caught.value.remote_exit_code == 3
    state.endpoints.unlink()
    with pytest.raises(NotRunningError):
        JobClient(partial(local_server, state), lambda: False, patience_s=3600)


def test_a_client_waits_for_the_endpoints_of_a_restart(state, server):
    """Between two daemons there is no file with endpoints for a moment."""
    hidden = state.root / "hidden"
    state.endpoints.rename(hidden)
    timer = later(0.3, lambda: hidden.rename(state.endpoints))
    with JobClient(partial(local_server, state), lambda: True, patience_s=10) as client:
        assert client.get(ID)["id"] == ID
    timer.join()


@pytest.mark.parametrize("count", [MAX_BATCH, MAX_BATCH + 1])
def test_many_jobs_are_waited_for_without_asking_for_each(server, client, count):
    """Above what a watch may name all jobs are watched; the states come by the page."""
    names = [f"many-{number:04}" for number in range(count)]
    server.ended = dict.fromkeys(names, SUCCEEDED) | {names[3]: job_pb2.JOB_STATE_FAILED}
    assert sorted(client.wait(names)) == names
    assert [job["id"] for job in client.get_all(names)] == names
    assert client.get_all(names)[3]["state"] == "FAILED"
    assert "GetJob" not in server.calls
    assert [len(ids) for ids in server.watched] == [count if count <= MAX_BATCH else 0]


def test_old_jobs_among_many_are_asked_for(server, client):
    """Jobs that are not among the newest are found all the same, and one that is nowhere is told."""
    old = [f"a-{number:02}" for number in range(60)]
    server.ended = dict.fromkeys([*old, *(f"b-{number:04}" for number in range(500))], SUCCEEDED)
    assert [job["id"] for job in client.get_all(old)] == old
