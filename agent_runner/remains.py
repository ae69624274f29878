"""What an attempt leaves behind: its outputs, and its result for an equal job. Used for jobs that ask for either."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import PurePosixPath

from agent_runner.attempt_control import AttemptControl, StopReason
from agent_runner.job_spec import JOB_ROOT, JobSpec
from agent_runner.outcome import EndReason, Outcome, OutputsRecord
from agent_runner.output_patterns import Patterns
from agent_runner.outputs.after_attempt import collect_outputs
from agent_runner.outputs.collection import MAX_SECONDS, deadline
from agent_runner.outputs.staging import StagedOutputs, StagingFailedError
from agent_runner.outputs_spec import OutputsPlace
from agent_runner.project_names import DEFAULT_PROJECT
from agent_runner.result_cache.entries import Entry, ResultCache
from agent_runner.result_cache.fingerprint import (
    FingerprintEndedError,
    Parts,
    TreeDigest,
    differences,
    digest_of,
    parts_of,
)
from sandbox.base import Sandbox
from sandbox.collection import Collecting
from sandbox.errors import SandboxError
from sandbox.filesystem.settled import in_thread


@dataclass(slots=True, kw_only=True)
class Remains:
    """Of one attempt: ``before`` once its source is there, ``after`` once its command has ended. Both write into its log."""

    job_id: str
    spec: JobSpec
    place: OutputsPlace
    mask: Callable[[str], str]
    """Hides secrets in a text."""
    control: AttemptControl
    write: Callable[[bytes], None]
    _parts: Parts | None = None

    async def before(self, sandbox: Sandbox) -> Outcome | None:
        """Return the end of the attempt if an equal job has succeeded before; called before anything of the job runs."""
        if self.spec.cache is None:
            return None
        cache = self._cache
        if cache is None or self.spec.workflow is not None:
            why_not = "it is off" if cache is None else "the job belongs to a workflow"
            self._say(f"runner: cache: not used: {why_not}")
            return None
        try:
            self._parts = await self._fingerprint(sandbox)
        except (FingerprintEndedError, SandboxError, OSError) as error:
            self._say(f"runner: cache: not used: the inputs cannot be read: {error}")
            return None
        entry, said = await in_thread(partial(self._look, cache, self._parts))
        self._say(f"runner: cache: {said}")
        if entry is None:
            return None
        outputs = OutputsRecord(files=entry.files)
        return Outcome(end_reason=EndReason.EXITED, exit_code=0, outputs=outputs)

    async def after(self, sandbox: Sandbox, outcome: Outcome) -> Outcome:
        """Return the end with the outputs of the command; keeps the result if it may stand for others."""
        if outcome.interrupted:
            return outcome
        if self.spec.outputs.paths:
            found = await collect_outputs(sandbox, self.spec, self.place, self.mask, self.control)
            for line in found.lines:
                self._say(line)
            # What had to be left behind by a shutdown is collected by the next attempt.
            left = found.cut_short and self.control.reason is StopReason.INTERRUPT
            outcome = replace(outcome, outputs=found.record, interrupted=left)
        if self._cache is not None and self._parts is not None and outcome.succeeded:
            why_not = await in_thread(partial(self._keep, self._cache, self._parts, outcome))
            if why_not:
                self._say(f"runner: cache: the result is not kept: {why_not}")
        return outcome

    @property
    def _cache(self) -> ResultCache | None:
        if self.spec.cache is None or self.place.cache_dir is None:
            return None
        return ResultCache(self.place.cache_dir, self.spec.project or DEFAULT_PROJECT)

    @property
    def _staged(self) -> StagedOutputs:
        return StagedOutputs(self.place.folder)

    async def _fingerprint(self, sandbox: Sandbox) -> Parts:
        """Digest what the sandbox holds now: what the job will see, whatever happens to its source meanwhile."""
        if not isinstance(sandbox, Collecting):
            raise FingerprintEndedError(f"sandboxes of the kind {sandbox.info.kind} give none out")
        cache = self.spec.cache
        assert cache is not None  # noqa: S101 - there is nothing to do otherwise
        ended = deadline(MAX_SECONDS, lambda: self.control.reason is not None)
        inputs: dict[str, str] = {}
        folders = [(PurePosixPath(self.spec.code_dir), cache.inputs)]
        if self.spec.ci_source.kind != "none":
            folders.append((PurePosixPath(JOB_ROOT, "ci"), ()))
        for folder, patterns in folders:
            path = str(folder.relative_to(JOB_ROOT))
            tree = TreeDigest(Patterns.of(patterns) if patterns else None, ended)
            await sandbox.collect("" if path == "." else path, tree)
            prefix = "" if folder == folders[0][0] else f"{folder}/"
            inputs |= {f"{prefix}{name}": fact for name, fact in tree.files.items()}
        return parts_of(self.spec, sandbox.info, inputs, version("runner"))

    def _look(self, cache: ResultCache, parts: Parts) -> tuple[Entry | None, str]:
        """Stage an equal result; say which, or why there is none. On a thread."""
        key = digest_of(parts)
        entry = cache.get(key)
        if entry is None:
            return None, f"miss: {self._why_missed(cache, parts)}"
        try:
            cache.restore(key, entry, self._staged)
        except (OSError, StagingFailedError) as error:
            return None, f"miss: the kept result cannot be used: {error}"
        counts = f"{len(parts['inputs'])} inputs, {len(entry.files)} outputs"
        return entry, (
            f"hit: nothing is run; job {entry.job_id} has succeeded with the same definition, inputs, environment, "
            f"sandbox and version ({counts})"
        )

    def _why_missed(self, cache: ResultCache, parts: Parts) -> str:
        latest = cache.latest(self.spec.name)
        if latest is None:
            return f"no result of {self.spec.name!r} is kept"
        changed = "; ".join(differences(latest.parts, parts))
        if not changed:
            return f"the result of job {latest.job_id} is gone"
        return f"changed since job {latest.job_id}: {changed}"

    def _keep(self, cache: ResultCache, parts: Parts, outcome: Outcome) -> str:
        """Keep a success, if it is whole; say why not. On a thread."""
        if outcome.interrupted or outcome.message:
            return outcome.message or "the attempt was interrupted"
        if outcome.outputs.error:
            return "outputs are missing"
        if outcome.triggers is not None or outcome.workflow_output:
            return "the job triggers others"
        entry = Entry(self.job_id, time.time_ns() // 1000, parts, outcome.outputs.files)
        try:
            cache.put(digest_of(parts), self.spec.name, entry, self._staged)
        except OSError as error:
            return f"the disk does not take it: {error.strerror or error}"
        return ""

    def _say(self, line: str) -> None:
        self.write(f"{self.mask(line)}\n".encode("utf-8", "replace"))
