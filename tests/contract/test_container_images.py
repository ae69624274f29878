"""Images from a registry: when one is fetched, what is told meanwhile, and which one runs."""

from __future__ import annotations

import itertools
import json
import re

import pytest

from sandbox.base import ExecRequest, Network, SandboxRequest
from sandbox.container.failure import Operation
from sandbox.container.images import obtain
from sandbox.container.provider import ContainerProvider
from sandbox.container.pull_report import PullProgress
from sandbox.container.registries import RegistryLogin
from sandbox.container.settings import PullPolicy
from sandbox.container.workspace_image import REPOSITORY, TAG
from sandbox.errors import ImageMissingError, SandboxError
from tests.contract.container_engine import settings_for
from tests.contract.engine_kinds import DOCKER
from tests.contract.image_registry import running_registry
from tests.contract.sandbox_backends import finish

_numbers = itertools.count(1)


@pytest.fixture
def registry():
    """A registry with one image."""
    with running_registry() as running:
        yield running


async def run(provider: ContainerProvider, image: str) -> tuple[bytes, str]:
    """Return what a command sees on an image, and what was recorded of it."""
    sandbox = await provider.create(SandboxRequest(name=f"image-{next(_numbers)}", image=image))
    request = ExecRequest(argv=("/bin/sh", "-c", "echo $VERSION"), env={}, cwd="/job/src")
    output, _ = await finish(await sandbox.exec(request))
    await sandbox.destroy()
    return output, sandbox.info.image


async def test_always_follows_a_tag_that_moves(container_engine, registry):
    """What the tag means now is what runs, and its digest is what is recorded."""
    settings = settings_for(container_engine, pull=PullPolicy.ALWAYS)
    provider = ContainerProvider(settings, owner_label="images")
    name = f"{registry.name}:latest"
    for version in ("1", "2"):
        digest = registry.put("latest", f"VERSION={version}", "PATH=/bin")
        assert await run(provider, name) == (f"{version}\n".encode(), f"{registry.name}@{digest}")
    await provider.close()


async def test_missing_fetches_once_and_tells_of_it(engine, registry, engine_kind):
    """The first time every layer is reported, the second time nobody is asked."""
    digest = registry.put("3", "VERSION=3")
    told: list[PullProgress] = []
    image = await obtain(engine, f"{registry.name}:3", PullPolicy.MISSING, told.append)
    assert image.digest == f"{registry.name}@{digest}"
    assert image.env["VERSION"] == "3"
    # Podman looks at the content: this layer may be here, under another digest.
    ends = {"Pull complete"} if engine_kind == DOCKER else {"Download complete", "Already exists"}
    assert ends & {one.status for one in told}
    assert all(one.image == image.name for one in told)
    asked = len(registry.asked)
    assert await obtain(engine, image.name, PullPolicy.MISSING) == image
    assert len(registry.asked) == asked


async def test_an_image_can_be_named_by_digest(engine, registry):
    """A digest is fetched as it is, whatever a tag means."""
    digest = registry.put("4", "VERSION=4")
    image = await obtain(engine, f"{registry.name}@{digest}", PullPolicy.MISSING)
    assert image.digest == f"{registry.name}@{digest}"


async def test_an_image_that_the_registry_does_not_have(engine, registry):
    """It is missing, and the error names it."""
    name = f"{registry.name}:none"
    for policy in (PullPolicy.MISSING, PullPolicy.ALWAYS):
        with pytest.raises(ImageMissingError, match=name):
            await obtain(engine, name, policy)


@pytest.mark.parametrize("by_token", [False, True], ids=["basic", "bearer"])
async def test_a_registry_that_wants_a_password(engine, registry, by_token):
    """It gets name and password, and nobody else does; a wrong one is an image that is not to be had, without the password."""
    registry.login, registry.by_token = ("bot", "canary-pa55"), by_token
    registry.put("6", "VERSION=6")
    name = f"{registry.name}:6"
    hosts: list[str] = []

    async def login(host: str, password: str = "canary-pa55") -> RegistryLogin:
        hosts.append(host)
        return RegistryLogin(username="bot", password=password)

    for logins in (None, lambda host: login(host, "canary-wr0ng")):
        with pytest.raises(SandboxError) as failed:
            await obtain(engine, name, PullPolicy.MISSING, logins=logins)
        assert "canary" not in str(failed.value) + repr(failed.value.__cause__)
    image = await obtain(engine, name, PullPolicy.MISSING, logins=login)
    assert image.env["VERSION"] == "6"
    assert hosts == [f"127.0.0.1:{registry.port}"] * 2
    assert "canary" not in repr(await login("x"))


async def test_the_log_of_a_job_tells_of_a_pull(container_engine, registry):
    """A line when it begins and one when it is here; none for an image that is here already."""
    registry.put("7")
    provider = ContainerProvider(
        settings_for(container_engine, pull=PullPolicy.MISSING), owner_label="told"
    )
    lines: list[str] = []
    image = f"{registry.name}:7"
    for number in range(2):
        request = SandboxRequest(name=f"told-{number}", image=image, tell=lines.append)
        await (await provider.create(request)).destroy()
    await provider.close()
    assert lines[0] == f"fetching the image {image}"
    assert re.fullmatch(
        rf"fetched the image {image} in \d+ s: (\d) of \1 layers, \d+ of \d+ MB", lines[-1]
    )
    assert len(lines) < 5


async def test_the_image_that_worked_last_is_remembered(container_engine, registry, tmp_path):
    """By project, over restarts, and only once a command of the job has begun."""
    registry.put("8", "VERSION=8", "PATH=/bin")
    memory = tmp_path / "images.json"
    settings = settings_for(
        container_engine, image="", pull=PullPolicy.MISSING, image_memory=memory
    )
    provider = ContainerProvider(settings, owner_label="memory")
    with pytest.raises(ImageMissingError, match="no container image"):
        await run(provider, "")
    with pytest.raises(ImageMissingError):
        await run(provider, f"{registry.name}:none")
    assert (await run(provider, f"{registry.name}:8"))[0] == b"8\n"
    await provider.close()
    provider = ContainerProvider(settings, owner_label="memory")
    assert (await run(provider, ""))[0] == b"8\n"
    with pytest.raises(ImageMissingError):
        await provider.create(SandboxRequest(name="memory-other", project="other"))
    await provider.close()
    assert json.loads(memory.read_text()) == {"default": f"{registry.name}:8"}


async def test_what_an_operator_prunes(container_engine, engine, tmp_path):
    """`docker system prune --all` takes images that no container needs, and containers that do not run: both are made anew."""
    (tmp_path / "given").write_text("given")
    provider = ContainerProvider(settings_for(container_engine), owner_label="pruned")
    try:
        await provider.probe()
        workspaces = f"/images/{REPOSITORY}:{TAG}"
        await engine.call(Operation.REMOVE, "DELETE", workspaces, params={"force": "true"})
        sandbox = await provider.create(SandboxRequest(name="pruned", network=Network.OFF))
        await engine.remove("runner-pruned-files")
        await sandbox.upload(tmp_path, "src")
        request = ExecRequest(argv=("cp", "given", "left"), env={}, cwd="/job/src")
        _, result = await finish(await sandbox.exec(request))
        assert result.exit_code == 0
        await engine.remove("runner-pruned-files")
        assert await sandbox.download("src/left", 10) == b"given"
        await engine.remove("runner-pruned-files")
        with pytest.raises(FileNotFoundError):
            await sandbox.download("src/nothing", 10)
    finally:
        await provider.close()


async def test_never_asks_nobody(engine, registry):
    """What is not here is missing, without a word to the registry."""
    registry.put("5")
    with pytest.raises(ImageMissingError):
        await obtain(engine, f"{registry.name}:5", PullPolicy.NEVER)
    assert registry.asked == []
