"""Hands a job what it may know of its workflow: variables of the environment, and a file for scripts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from agent_runner.job_spec import JOB_ROOT
from agent_runner.workflow_spec import WorkflowSpec
from sandbox.base import Sandbox

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

VARS_FILE = "workflow-vars.json"
OUTPUT_FILE = "workflow-output.json"
PREFIXES = ("RUNNER_WF_", "RC_WF_")
"""Of the variables; the second is the first generation's."""


def workflow_environment(workflow: WorkflowSpec, sandbox: Sandbox) -> dict[str, str]:
    """Return the variables that tell a job of its workflow; called once per attempt of such a job."""
    facts = {
        "ID": workflow.id,
        "NAME": workflow.name,
        "VARS_JSON": workflow.vars_json,
        "VARS_FILE": sandbox.inside(f"{JOB_ROOT}/{VARS_FILE}"),
        "OUTPUT_FILE": sandbox.inside(f"{JOB_ROOT}/{OUTPUT_FILE}"),
    }
    return {f"{prefix}{name}": text for prefix in PREFIXES for name, text in facts.items()}


async def hand_in(sandbox: Sandbox, workflow: WorkflowSpec) -> None:
    """Put the file of variables into a sandbox, before its command starts.

    Raises:
        SandboxError: It cannot take it.
    """
    folder = await asyncio.to_thread(_written, workflow.vars_json)
    try:
        await sandbox.upload(Path(folder.name), "")
    finally:
        await asyncio.to_thread(folder.cleanup)


def _written(text: str) -> TemporaryDirectory[str]:
    # Late: few jobs need it, and an agent-runner that rests is to be small.
    from tempfile import TemporaryDirectory  # noqa: PLC0415

    folder = TemporaryDirectory(prefix="runner-workflow-")
    path = Path(folder.name, VARS_FILE)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    return folder
