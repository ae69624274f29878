"""Where an agent-runner has its token from."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.errors import SecretNeededError, UsageError
from daemon.foreground.token_file import read_token

TOKEN = "rt_0123456789abcdef"


@pytest.fixture
def said() -> list[str]:
    return []


def private(path: Path, content: str) -> Path:
    path.write_text(content)
    path.chmod(0o600)
    return path


def test_a_file_that_is_named_beats_the_credential_of_the_service(tmp_path, said):
    """Line ends around the token do not count."""
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    private(tmp_path / "runner-token", f"{TOKEN}-credential\n")
    assert read_token(None, env, said.append) == f"{TOKEN}-credential"
    assert read_token(private(tmp_path / "mine", f"{TOKEN}\r\n"), env, said.append) == TOKEN
    assert said == []


def test_a_file_that_others_can_read_is_told(tmp_path, said):
    """It may be a mount of a container that nobody else sees, so it counts."""
    path = private(tmp_path / "token", TOKEN)
    path.chmod(0o644)
    assert read_token(path, {}, said.append) == TOKEN
    assert len(said) == 1
    assert TOKEN not in said[0]


def test_no_token(said):
    """The message says how to have one."""
    with pytest.raises(SecretNeededError, match="runner tokens create"):
        read_token(None, {"CREDENTIALS_DIRECTORY": "/nowhere"}, said.append)


@pytest.mark.parametrize("content", ["", "\n", "two words", "tök", "a\nb", "x" * 5000])
def test_no_such_token(tmp_path, said, content):
    """What was in the file is not repeated."""
    with pytest.raises(UsageError) as caught:
        read_token(private(tmp_path / "token", content), {}, said.append)
    assert not content.strip() or content.strip() not in str(caught.value)
