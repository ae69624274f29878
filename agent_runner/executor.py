"""Runs one attempt end to end: secrets → sandbox → source → environment → command → masked log → outcome.

The same code runs under the worker and under ``run-local``: it knows no server, only a LogWriter and an
AttemptControl. Whatever goes wrong becomes an Outcome; only a defect raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from agent_runner.attempt_control import AttemptControl, CommandStopper
from agent_runner.errors import (
    InvalidJobSpecError,
    SecretMissingError,
    SecretSourceGoneError,
    SourceError,
)
from agent_runner.fallback import CONTAINER, FILESYSTEM, Consent, Fallback
from agent_runner.job_environment import job_environment
from agent_runner.job_masking import JobMasking, sendable
from agent_runner.job_spec import JobSpec
from agent_runner.left_files import look
from agent_runner.log_pump import LogPump
from agent_runner.log_writer import LogWriter
from agent_runner.outcome import NO_SOURCE, EndReason, Outcome, SandboxRecord
from agent_runner.outputs_spec import OutputsPlace
from agent_runner.registrars import may_register
from agent_runner.sandbox_terms import sandbox_record, sandbox_request
from agent_runner.secret_refs import SecretRef, refs_of, require, resolve, source_credentials
from agent_runner.secret_source import Found, SecretSource
from agent_runner.verdict import command_end, early_end
from agent_runner.watcher import Watcher
from agent_runner.workflow_input import hand_in
from sandbox.base import (
    Command,
    ExecRequest,
    ExecResult,
    LiveProcess,
    Sandbox,
    SandboxProvider,
)
from sandbox.errors import CommandNotStartedError, SandboxError
from sandbox.masking.floors import is_secret_name
from sandbox.masking.stream import Stream

if TYPE_CHECKING:
    from agent_runner.outputs.handing_on import InputsSource
    from agent_runner.remains import Remains

logger = logging.getLogger(__name__)

DEFAULT_GRACE_S = 10.0
ORPHAN_BOUND_S = 5.0
"""How long an attempt without a daemon waits for its end before it ends by itself."""
GIVE_UP_S = 10.0
"""How long a container is cleaned up that another sandbox takes the place of; its provider tries again later."""
MIN_COMMAND_S = 0.001
"""What is left for a command whose preparation took nearly all of the time-out."""

T = TypeVar("T")


class AttemptRequest(NamedTuple):
    """One attempt to run."""

    job_id: str
    attempt: int
    spec: JobSpec
    source_dir: Path
    """Where sources are prepared; see ``source.places``."""
    watcher: Watcher | None = None
    """Looks at the sandbox before and after the command."""
    outputs: OutputsPlace | None = None
    """None where they are not collected."""
    inputs: InputsSource | None = None
    """None where no other jobs are."""
    stdin: int | None = None
    """See ``ExecRequest.stdin``."""


class AttemptRun:
    """One attempt. ``run`` once, then ``clean_up``, which is safe at any moment and repeatedly."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of one attempt
        self,
        provider: SandboxProvider,
        request: AttemptRequest,
        secrets: SecretSource,
        log: LogWriter,
        control: AttemptControl,
        consent: Consent | None = None,
    ) -> None:
        self._provider = provider
        self._request = request
        self._fallback = Fallback(request.spec, provider.kind, consent)
        self._spec = request.spec
        if self._fallback.withheld:
            env = self._fallback.handed_out(request.spec.env)
            self._spec = replace(request.spec, env=env)
        self._has_material = request.spec.has_material
        self._secrets = secrets
        self._log = log
        self._control = control
        self._sandbox_request = sandbox_request(
            request.job_id, request.attempt, request.spec, self._tell
        )
        self._masking = JobMasking(request.spec)
        self._values: dict[SecretRef, str] = {}
        self._sandbox: Sandbox | None = None
        self._source = NO_SOURCE
        self._credentials: dict[str, str] = {}
        self._command: Command | None = None
        self._remains: Remains | None = None
        self._equal_result: Outcome | None = None
        self._exec_asked = self._has_run = False
        self._written = 0
        self._truncated = False

    async def run(self) -> Outcome:
        """Run the attempt and tell how it ended."""
        try:
            outcome = await self._run()
        except (SecretMissingError, InvalidJobSpecError) as error:
            # The second: a value that no variable can hold, which only shows when it is filled in.
            outcome = Outcome(end_reason=EndReason.SECRET_MISSING, message=str(error))
        except SourceError as error:
            outcome = Outcome(end_reason=EndReason.SOURCE_FAILED, message=str(error))
        except CommandNotStartedError as error:
            message = f"the command could not be started: {error}"
            outcome = Outcome(end_reason=EndReason.SOURCE_FAILED, message=message)
        except SandboxError as error:
            outcome = self._fallback.failure(error)
        if self._fallback.is_told:
            outcome = self._fallback.told(outcome)
        message = outcome.message and sendable(self._masking.masker.mask_text(outcome.message))
        sandbox = SandboxRecord() if self._sandbox is None else sandbox_record(self._sandbox.info)
        log = self._log.summary()
        if self._truncated:
            log = replace(log, truncated="size_limit")
        return replace(outcome, message=message, sandbox=sandbox, source=self._source, log=log)

    async def processes(self) -> list[LiveProcess] | None:
        """Return what runs now, with masked commands; None if the command does not run yet. Called when a person asks."""
        if self._command is None:
            return None
        processes = await self._command.processes()
        return await asyncio.to_thread(
            lambda: [self._masking.masked(process) for process in processes]
        )

    async def clean_up(self) -> None:
        """Destroy the sandbox, if there is one."""
        if self._sandbox is not None:
            await self._sandbox.destroy()

    async def _run(self) -> Outcome:
        began = asyncio.get_running_loop().time()
        env = None if self._control.reason else await self._environment()
        if env is None:
            return early_end(self._spec, self._control.reason)
        try:
            return await self._in_sandbox(env, began)
        except SandboxError as error:
            before = self._control.reason
            if not await self._takes_over(error):
                if self._control.reason is not before:  # the answer of a person who was asked
                    return early_end(self._spec, self._control.reason)
                raise
        return await self._in_sandbox(self._fallback.handed_out(env), began)

    async def _takes_over(self, error: SandboxError) -> bool:
        """Tell whether another sandbox takes the place of the container that failed, after clearing its place."""
        if self._control.reason is not None or self._has_run:
            return False
        if not self._fallback.is_possible(error, exec_asked=self._exec_asked):
            return False
        if not await self._unless_stopped(self._fallback.is_agreed(error)):
            return False
        logger.warning(
            "no container; the job runs in the filesystem sandbox",
            extra={"action": "fallback", "job_id": self._request.job_id, "why": str(error)},
        )
        self._fallback.take_over(error)
        if self._sandbox is not None:
            with contextlib.suppress(SandboxError, TimeoutError):
                async with asyncio.timeout(GIVE_UP_S):
                    await self._sandbox.destroy()
        self._sandbox = self._command = None
        self._exec_asked = False
        self._sandbox_request = replace(self._sandbox_request, kind=FILESYSTEM)
        return True

    async def _in_sandbox(self, env: dict[str, str], began: float) -> Outcome:
        sandbox = await self._prepared()
        left_s = self._spec.timeout_s - (asyncio.get_running_loop().time() - began)
        if sandbox is None:
            return early_end(self._spec, self._control.reason)
        if self._equal_result is not None:
            return self._equal_result
        env = await self._completed(env, sandbox)
        watcher, cwd = self._request.watcher, sandbox.inside(self._spec.working_dir)
        if watcher is not None:
            await self._unless_stopped(watcher.before(sandbox, env, cwd))
            if self._control.reason is not None:
                return early_end(self._spec, self._control.reason)
        outcome = await self._command_end(sandbox, env, cwd, left_s)
        if watcher is not None:
            await self._unless_stopped(watcher.after(sandbox))
        outcome = await self._followed(sandbox, outcome)
        return outcome if self._remains is None else await self._remains.after(sandbox, outcome)

    async def _completed(self, env: dict[str, str], sandbox: Sandbox) -> dict[str, str]:
        """Return all variables of the command; what it is to know is in the sandbox then, and in the log."""
        env = (
            job_environment(self._request.job_id, self._request.attempt, self._spec, sandbox) | env
        )
        if sandbox.info.loopback:
            # Few operators want it, and an agent-runner that rests is to be small.
            from agent_runner.reachable_hosts import rewritten  # noqa: PLC0415

            env = await rewritten(env, sandbox.info.loopback, self._values.values(), self._masking)
        if self._fallback.is_told:
            env |= self._fallback.variables(self._masking.masker.mask_text)
            self._write(self._fallback.notice(sandbox.info, self._masking.masker.mask_text))
        if self._spec.workflow is not None:
            await hand_in(sandbox, self._spec.workflow)
        if may_register(self._spec, has_secrets=bool(self._values)):
            # What it needs takes a quarter of a megabyte.
            from agent_runner.late_secrets import LateSecrets  # noqa: PLC0415

            env |= await LateSecrets(self._masking.masker).open(sandbox, env)
        return env

    async def _command_end(
        self, sandbox: Sandbox, env: dict[str, str], cwd: str, left_s: float
    ) -> Outcome:
        self._exec_asked = True
        command = await sandbox.exec(
            ExecRequest(
                argv=self._spec.argv,
                env=env,
                cwd=cwd,
                timeout_s=max(left_s, MIN_COMMAND_S),
                idle_timeout_s=self._spec.idle_timeout_s,
                grace_s=DEFAULT_GRACE_S,
                stdin=self._request.stdin,
            )
        )
        self._command = command
        stopper = CommandStopper(command, self._control)
        try:
            log = LogPump(self._open_log, self._write, self._log.drained)
            await log.run(command.stream())
            return self._ended(await command.wait())
        finally:
            await stopper.close()

    async def _followed(self, sandbox: Sandbox, outcome: Outcome) -> Outcome:
        """Return an end with what the command left for others."""
        cancelled = outcome.end_reason is EndReason.CANCELLED
        if cancelled or not any(left := await look(sandbox, self._spec)):
            return outcome
        # Few jobs leave anything, and what reads it takes long to import.
        from agent_runner.follow_up import FollowUp  # noqa: PLC0415

        return await FollowUp(
            sandbox=sandbox,
            job_id=self._request.job_id,
            spec=self._spec,
            masker=self._masking.masker,
            values=self._values,
            write=self._write,
        ).of(outcome, left)

    async def _environment(self) -> dict[str, str] | None:
        """Return the job's variables with their references filled in and masked from here on; None as ``_unless_stopped``."""
        refs = refs_of(self._spec)
        if refs and not await self._take_secrets(refs):
            return None
        env = resolve(self._spec.env, self._values) if self._spec.env else {}
        if self._has_material:
            self._credentials = source_credentials(self._spec, self._values)
        if presumed := [text for name, text in env.items() if is_secret_name(name)]:
            await self._masking.presume(presumed)
        return env

    async def _take_secrets(self, refs: Sequence[SecretRef]) -> bool:
        """Get the values of references, and hide them from here on; tell whether the attempt may go on."""
        at_hand = self._secrets.at_hand
        values, why_missing = {ref: at_hand[ref] for ref in refs if ref in at_hand}, ""
        if len(values) < len(refs):
            asked = [ref for ref in refs if ref not in values]
            found = await self._unless_stopped(self._ask(asked))
            if found is None:
                return False
            values |= found.values
            why_missing = found.why_missing
        require(refs, values, why_missing)
        self._values = values
        named = {f"{ref.path}:{ref.key}": value for ref, value in values.items()}
        await self._masking.hide(named, [at_hand[ref] for ref in refs if ref in at_hand])
        return True

    async def _ask(self, refs: Sequence[SecretRef]) -> Found:
        try:
            return await self._secrets.ask(refs)
        except SecretSourceGoneError as error:
            # The daemon has died, and this process learns it at once by its life pipe: the attempt is given back.
            await asyncio.sleep(ORPHAN_BOUND_S)
            raise SecretMissingError(
                f"no value for {', '.join(map(str, refs))}: {error}"
            ) from error

    async def _prepared(self) -> Sandbox | None:
        """Return the sandbox with its source; None if the attempt has to end before there is a command."""
        kinds = (self._provider.kind, self._sandbox_request.kind)
        if self._has_material or CONTAINER in kinds:  # whose image may have to come first
            return await self._unless_stopped(self._prepare())
        # Nothing here takes long: two tasks to watch it would cost more than it does.
        sandbox = await self._prepare()
        return sandbox if self._control.reason is None else None

    async def _prepare(self) -> Sandbox:
        self._sandbox = await self._provider.create(self._sandbox_request)
        if self._has_material:
            # Few jobs have one, and an agent-runner that rests is to be small.
            from agent_runner.material import put_material  # noqa: PLC0415

            folder, inputs = self._request.source_dir, self._request.inputs
            self._source = await put_material(
                self._spec, self._sandbox, folder, self._credentials, inputs
            )
        if (place := self._request.outputs) and (self._spec.outputs.paths or self._spec.cache):
            from agent_runner.remains import Remains  # noqa: PLC0415 - as few jobs have any

            self._remains = Remains(
                job_id=self._request.job_id,
                spec=self._spec,
                place=place,
                mask=self._masking.masker.mask_text,
                control=self._control,
                write=self._write,
            )
            self._equal_result = await self._remains.before(self._sandbox)
        return self._sandbox

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return the result of some work; None if a request to stop or the time-out comes first, and the work has ended then too."""
        working = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self._control.asked())
        try:
            await asyncio.wait(
                {working, asked},
                timeout=self._spec.timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._control.reason is None and working.done():
                return await working
            working.cancel()
            await asyncio.wait({working})
            return None
        finally:
            asked.cancel()
            working.cancel()
            await asyncio.wait({working, asked})

    def _open_log(self) -> Stream:
        """Return what the output passes, of which there is some."""
        self._has_run = True
        return self._masking.log_stream()

    def _tell(self, line: str) -> None:
        """Write a line of our own, before the command begins; it counts for no bound of what that says."""
        self._log.write(sendable(f"runner: {self._masking.masker.mask_text(line)}\n").encode())

    def _write(self, data: bytes) -> None:
        room = self._sandbox_request.limits.output_bytes - self._written
        if len(data) > room:
            self._truncated = True
            data = data[:room]
        if data:
            self._written += len(data)
            self._log.write(data)

    def _ended(self, result: ExecResult) -> Outcome:
        self._has_run = True
        if result.survivors:
            logger.error(
                "processes survived KILL",
                extra={"action": "processes_survived", "processes": ", ".join(result.survivors)},
            )
        return command_end(self._spec, result, self._control.reason)
