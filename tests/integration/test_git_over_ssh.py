"""Sources over ssh, from a real server: the key is a secret of the job, and the server's key must be known."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent_runner.errors import SourceError
from agent_runner.job_spec import SourceSpec
from tests.integration.git_servers import Repository
from tests.integration.sources import Desk
from tests.ports import quiet_port
from tests.waiting import wait_until

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin:/bin")

pytestmark = pytest.mark.skipif(SSHD is None, reason="needs openssh-server")

CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/client.pub
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin yes
PidFile none
"""


@dataclass
class Server:
    port: int
    key: str
    host_key: str

    def url(self, repository: Repository) -> str:
        return f"ssh://{pwd.getpwuid(os.getuid()).pw_name}@127.0.0.1:{self.port}{repository.path}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "ssh"
    folder.mkdir()
    for name in ("host", "client"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    port = quiet_port()
    config = folder / "sshd_config"
    config.write_text(CONFIG.format(port=port, folder=folder))
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    assert SSHD is not None
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(port), 20, "sshd")
        host_key = f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}"
        yield Server(port, (folder / "client").read_text(), host_key)
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as made:
            return bool(made.recv(4))
    except OSError:
        return False


async def test_a_private_key(server: Server, tmp_path: Path) -> None:
    """It opens the repository, and lies in no file."""
    repository = Repository(tmp_path / "repo")
    commit = repository.commit(a="over ssh")
    desk = Desk(tmp_path / "de sk'")
    source = SourceSpec(kind="git", url=server.url(repository), credentials="x")

    with pytest.raises(SourceError, match="Host key verification failed"):
        await desk.prepare(source, source_credentials=server.key)
    (desk.root / "known_hosts").write_text(server.host_key)
    record = await desk.prepare(source, source_credentials=server.key.strip())

    assert (record.commit, desk.text("a")) == (commit, "over ssh")
    secret = server.key.splitlines()[2].encode()
    for path in desk.root.parent.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert secret not in path.read_bytes(), path


async def test_no_key(server: Server, tmp_path: Path) -> None:
    """The server's refusal is the message; what is no key is not tried."""
    repository = Repository(tmp_path / "repo")
    repository.commit(a="x")
    desk = Desk(tmp_path / "desk")
    desk.root.mkdir(parents=True)
    (desk.root / "known_hosts").write_text(server.host_key)
    source = SourceSpec(kind="git", url=server.url(repository), credentials="x")

    with pytest.raises(SourceError, match="Permission denied"):
        await desk.prepare(SourceSpec(kind="git", url=source.url))
    with pytest.raises(SourceError, match="must be a private key"):
        await desk.prepare(source, source_credentials="a-password")
