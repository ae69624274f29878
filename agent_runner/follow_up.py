"""What an attempt leaves for others: the jobs that it triggers, and what it gives to its workflow.

Called once, after the command has ended by itself or by a bound. The files are the job's, so they are read without
following links, within bounds, and checked before anybody else sees them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from agent_runner.errors import TriggersRefusedError
from agent_runner.job_spec import JOB_ROOT, JobSpec
from agent_runner.left_files import TRIGGERS_FILE, LeftFiles, read
from agent_runner.outcome import EndReason, Outcome, TriggerFile, Triggers
from agent_runner.secret_refs import SecretValues
from agent_runner.triggers.document import (
    AskedJob,
    AskedWorkflow,
    check_document,
    check_output,
)
from agent_runner.triggers.graph import graphs_of
from agent_runner.triggers.passing_on import PassingOn
from agent_runner.triggers.strict_json import read_object
from agent_runner.workflow_input import OUTPUT_FILE
from agent_runner.workflow_spec import vars_json
from sandbox.base import Sandbox
from sandbox.errors import TransferRefusedError
from sandbox.masking.masker import Masker

MAX_FILE_BYTES = 256 << 10
"""Of one job file, as everywhere."""
MAX_FILES_BYTES = 512 << 10
MAX_WARNINGS = 10
SUFFIXES = (".yaml", ".yml", ".json")
FOLDERS = ("jobs/", "", ".runner/jobs/", ".reactorcide/jobs/")
"""Where a job that names neither a command nor a file has a file of its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUp:
    """Reads what one attempt left."""

    sandbox: Sandbox
    job_id: str
    spec: JobSpec
    masker: Masker
    """Of the log."""
    values: SecretValues
    """That were filled in."""
    write: Callable[[bytes], None]
    """Takes lines for the log, after all that the command printed."""

    async def of(self, outcome: Outcome, left: LeftFiles) -> Outcome:
        """Return the end of the attempt with what follows from it; a failed one if that breaks a rule."""
        try:
            left.check()
            triggers = None if left.triggers is None else await self._triggers(left.triggers)
            output = "" if left.output is None else await self._output(left.output)
        except TriggersRefusedError as error:
            self._say(str(error))
            return _refused(outcome, str(error))
        return replace(outcome, triggers=triggers, workflow_output=output)

    async def _triggers(self, content: bytes) -> Triggers | None:
        warnings: list[str] = []
        try:
            # On a thread: a hostile file can have many texts to search.
            workflows = await asyncio.to_thread(self._checked, content, warnings.append)
            files, workflows = await self._files(workflows)
            await asyncio.to_thread(self._passing_on().check, dict(files), "")
        except TriggersRefusedError as error:
            raise TriggersRefusedError(TRIGGERS_FILE, str(error)) from None
        for warning in warnings[:MAX_WARNINGS]:
            self._say(f"{TRIGGERS_FILE}: {warning}")
        if not any(workflow.jobs or workflow.variables for workflow in workflows):
            return None
        return Triggers(_document(workflows), files)

    async def _output(self, content: bytes) -> str:
        try:
            output = check_output(_object(content))
            await asyncio.to_thread(self._passing_on().check, output, "")
        except TriggersRefusedError as error:
            raise TriggersRefusedError(OUTPUT_FILE, str(error)) from None
        return vars_json(output) if any(output.values()) else ""

    def _checked(self, content: bytes, warn: Callable[[str], None]) -> tuple[AskedWorkflow, ...]:
        passing_on = self._passing_on()
        workflows = tuple(
            _safe(workflow, passing_on) for workflow in check_document(_object(content), warn)
        )
        graphs_of(workflows, (self.spec.name, self.job_id))
        return workflows

    def _say(self, line: str) -> None:
        """Write a line into the log, masked: it may hold what the job wrote."""
        text = "".join(char if char.isprintable() else "?" for char in line)
        self.write(f"runner: {self.masker.mask_text(text)}\n".encode())

    def _passing_on(self) -> PassingOn:
        return PassingOn(self.masker, self.values, plain=self.spec.env.values())

    async def _files(
        self, workflows: tuple[AskedWorkflow, ...]
    ) -> tuple[tuple[TriggerFile, ...], tuple[AskedWorkflow, ...]]:
        """Return the job files that jobs name, and the jobs, each with the name of its file."""
        found: dict[str, TriggerFile] = {}
        named = []
        for workflow in workflows:
            jobs = []
            for job in workflow.jobs:
                file = await self._file_of(job, found)
                jobs.append(replace(job, job_file=file.name if file else ""))
            named.append(replace(workflow, jobs=tuple(jobs)))
        return tuple(found.values()), tuple(named)

    async def _file_of(self, job: AskedJob, found: dict[str, TriggerFile]) -> TriggerFile | None:
        if job.job_file:
            paths = [job.job_file]
        elif "job_command" in job.fields or "steps" in job.fields:
            return None
        else:
            paths = [f"{folder}{job.name}{suffix}" for folder in FOLDERS for suffix in SUFFIXES]
        for path in paths:
            file = found.get(path) or await self._job_file(
                path, sum(len(one.content) for one in found.values())
            )
            if file is not None:
                found[path] = file
                return file
        place = f"jobs ({job.name})"
        if job.job_file:
            raise TriggersRefusedError(
                f"{place}.job_file", "is neither in the source nor in /job/ci"
            )
        raise TriggersRefusedError(
            place, f"has neither job_command nor job_file, and there is no file {paths[0]}"
        )

    async def _read(self, path: str) -> bytes | None:
        try:
            return await read(self.sandbox, path, MAX_FILE_BYTES)
        except TransferRefusedError as error:
            raise TriggersRefusedError(path, str(error)) from None

    async def _job_file(self, path: str, so_far: int) -> TriggerFile | None:
        for folder in ("ci", _below_root(self.spec.code_dir)):
            content = await self._read(str(PurePosixPath(folder, path)))
            if content is None:
                continue
            if so_far + len(content) > MAX_FILES_BYTES:
                raise TriggersRefusedError(
                    path, f"the job files are larger than {MAX_FILES_BYTES // 1024} KiB together"
                )
            try:
                text = content.decode()
            except UnicodeDecodeError:
                raise TriggersRefusedError(path, "holds bytes that are not UTF-8") from None
            return TriggerFile(path, text)
        return None


def _object(content: bytes) -> dict[str, object]:
    try:
        return read_object(content)
    except ValueError as error:
        raise TriggersRefusedError("", str(error)) from None


def _safe(workflow: AskedWorkflow, passing_on: PassingOn) -> AskedWorkflow:
    passing_on.check({"name": workflow.name, "vars": workflow.variables}, "workflow")
    jobs = (passing_on.job(job, f"jobs ({job.name})") for job in workflow.jobs)
    return replace(workflow, jobs=tuple(jobs))


def _below_root(path: str) -> str:
    return path.removeprefix(JOB_ROOT).strip("/")


def _refused(outcome: Outcome, problem: str) -> Outcome:
    """Return an end that failed for this; one that failed by itself keeps its reason."""
    reason = EndReason.WORKFLOW_FAILED if outcome.succeeded else outcome.end_reason
    message = f"{outcome.message}; {problem}" if outcome.message else problem
    return replace(outcome, end_reason=reason, message=message)


def _document(workflows: tuple[AskedWorkflow, ...]) -> str:
    return json.dumps(
        {
            "workflows": [
                {
                    "name": workflow.name,
                    "vars": workflow.variables,
                    "jobs": [_job(job) for job in workflow.jobs],
                }
                for workflow in workflows
            ]
        },
        separators=(",", ":"),
    )


def _job(job: AskedJob) -> dict[str, object]:
    own = {
        "job_name": job.name,
        "depends_on": job.depends_on,
        "inputs": job.inputs,
        "condition": job.condition,
        "env": job.env,
        "job_file": job.job_file,
    }
    document = {name: value for name, value in own.items() if value} | dict(job.fields)
    if job.for_each is not None:
        document |= {"for_each": job.for_each, "item_var": job.item_var}
    return document
