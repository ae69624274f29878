"""The walls of a container, read off its description."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.base import Network, SandboxRequest
from sandbox.container import hardening, nesting
from sandbox.container.settings import ContainerSettings, EngineAddress, Nesting
from sandbox.errors import SandboxUnavailableError
from sandbox.limits import GIB, Limits


def described(network: Network = Network.ON, **limits: Any) -> dict[str, Any]:
    """Return a container for a job."""
    fuses = hardening.Fuses.of(Limits(**limits), memory_bytes=8 * GIB, cpus=4, pids=4096)
    marks = hardening.labels("owner", "/state", SandboxRequest(name="job1-2"))
    return hardening.job(
        "sha256:1",
        ["true"],
        settings=ContainerSettings(),
        network=network,
        fuses=fuses,
        mounts=[hardening.workspace_mount("v", marks)],
        marks=marks,
    )


def test_every_wall_is_asked_for():
    """Hardening is the default, not an option."""
    config = described()
    host = config["HostConfig"]
    assert config["User"] == "1000:1000"
    assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges:true"])
    assert (host["ReadonlyRootfs"], host["Privileged"], host["Init"]) == (True, False, True)
    assert host["LogConfig"] == {"Type": "none"}
    assert all("nosuid,nodev" in options for options in host["Tmpfs"].values())
    assert [mount["Type"] for mount in host["Mounts"]] == ["volume"]
    assert "Binds" not in host
    assert "docker.sock" not in str(config)
    assert config["Env"] == []


def test_an_engine_inside_is_the_only_way_to_more():
    """And then nothing is left out that it needs; the files of the engine go with the container."""
    config = nesting.changed(described(), Nesting.DIND, ContainerSettings())
    host = config["HostConfig"]
    assert (config["User"], host["Privileged"], host["ReadonlyRootfs"]) == ("0:0", True, False)
    assert host["Mounts"][-1] == {"Type": "volume", "Target": "/var/lib/docker"}
    assert (host["PidsLimit"], host["Memory"]) == (4096, 8 * GIB)
    assert nesting.changed(described(), Nesting.NONE, ContainerSettings()) == described()


def test_bounds_are_there_without_being_asked_for():
    """A job that names none still cannot take the host down; no swap on top of the memory."""
    host = described()["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 8 * GIB
    assert (host["NanoCpus"], host["PidsLimit"]) == (4_000_000_000, 4096)
    host = described(memory_bytes=GIB, cpus=0.5, pids=9)["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == GIB
    assert (host["NanoCpus"], host["PidsLimit"]) == (500_000_000, 9)
    assert described(cpus=99)["HostConfig"]["NanoCpus"] == 4_000_000_000


def test_the_network_is_off_or_the_operators():
    """Off is a loopback only."""
    assert described(Network.OFF)["HostConfig"]["NetworkMode"] == "none"
    assert described()["HostConfig"]["NetworkMode"] == "default"


def test_labels_name_owner_job_and_attempt():
    """What is found by them after a crash, and by a person who looks."""
    assert described()["Labels"] == {
        "runner.owner": "owner",
        "runner.state_directory": "/state",
        "runner.sandbox": "job1-2",
        "runner.job": "job1",
        "runner.attempt": "2",
    }


@pytest.mark.parametrize(
    ("text", "tls", "socket", "url"),
    [
        ("unix:///run/docker.sock", False, "/run/docker.sock", ""),
        ("tcp://127.0.0.1:2375", False, "", "http://127.0.0.1:2375"),
        ("tcp://[::1]:2375", False, "", "http://[::1]:2375"),
        ("tcp://engine.example.com:2376", True, "", "https://engine.example.com:2376"),
    ],
)
def test_addresses(text, tls, socket, url):
    """A unix socket, or TCP with TLS beyond loopback."""
    assert EngineAddress.parse(text, tls=tls) == EngineAddress(socket=socket, url=url)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix://",
        "docker.sock",
        "http://x:1",
        "tcp://x",
        "tcp://10.0.0.1:2375",
        "tcp://a@127.0.0.1:1",
    ],
)
def test_addresses_that_are_refused(text):
    """No address, or a port on a network that would make everybody root."""
    with pytest.raises(SandboxUnavailableError):
        EngineAddress.parse(text, tls=False)
