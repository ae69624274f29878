"""Removes what agent-runners that are no more have left in a container engine.

``python -P -m agent_runner.container_removal LABEL…``, with the environment of an agent-runner, which says how the engine is
reached. Started by the daemon, which does without a client of engines.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Collection

from agent_runner.config import AgentRunnerConfig
from agent_runner.errors import AgentRunnerError
from sandbox.container.leftovers import CONTAINER, VOLUME, find_made_by_runners, remove_all
from sandbox.container.settings import ContainerSettings
from sandbox.errors import SandboxError


async def remove_made_by(settings: ContainerSettings, owners: Collection[str]) -> None:
    """Remove every container and volume with one of these labels.

    Raises:
        SandboxError: The engine cannot be asked, or does not remove.
    """
    found = [one for one in await find_made_by_runners(settings) if one.owner in owners]
    containers = [one.name for one in found if one.kind == CONTAINER]
    volumes = [one.name for one in found if one.kind == VOLUME]
    await remove_all(settings, containers, volumes)


def main() -> int:
    """Do it; what went wrong is on standard error."""
    env = dict(os.environ)  # noqa: TID251 - the one read of this process
    try:
        settings = AgentRunnerConfig.from_env(env).get_sandbox_config().container
        asyncio.run(remove_made_by(settings, sys.argv[1:]))
    except (AgentRunnerError, SandboxError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - nobody else listens
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
