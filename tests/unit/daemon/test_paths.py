"""Where an installation keeps what."""

from __future__ import annotations

import pytest

from daemon.errors import StateDirError
from daemon.paths import MAX_SOCKET_PATH_BYTES, find_state_dir


def test_the_state_directory_is_the_first_that_is_named() -> None:
    """A flag, then the variable, then XDG, then the home."""
    env = {"HOME": "/h", "XDG_STATE_HOME": "/x", "RUNNER_STATE_DIR": "/v"}
    assert str(find_state_dir(env, "/f").root) == "/f"
    assert str(find_state_dir(env).root) == "/v"
    del env["RUNNER_STATE_DIR"]
    assert str(find_state_dir(env).root) == "/x/runner"
    del env["XDG_STATE_HOME"]
    assert str(find_state_dir(env).root) == "/h/.local/state/runner"
    with pytest.raises(StateDirError, match="HOME"):
        find_state_dir({})


@pytest.mark.parametrize("name", ["x" * 200, "a#b", "a?b", "a%41", "a,b"])
def test_sockets_lie_where_grpc_can_name_them(name: str) -> None:
    """A path that is too long or reads as something else in a URI gets a short folder of its own."""
    state = find_state_dir({}, f"/var/{name}")
    socket = str(state.server_socket)
    assert len(socket.encode()) <= MAX_SOCKET_PATH_BYTES
    assert not set("#?%,") & set(socket)
    other = find_state_dir({}, f"/var/{name}2")
    assert other.server_socket != state.server_socket
