"""Domain values to protobuf and back, for both ends of the wire; the only place where the two meet.

Every optional field of the wire has its default here, so that a client in another language may leave out what it does
not need. Nothing is validated: ``JobSpec.validate`` does that, on the value that comes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from agent_runner.errors import InvalidJobSpecError
from agent_runner.job_spec import (
    DEFAULT_TIMEOUT_S,
    ConcurrencySpec,
    JobSpec,
    RetryPolicy,
    SourceSpec,
)
from agent_runner.outcome import (
    EndReason,
    LimitRecord,
    LogSummary,
    Outcome,
    OutputFile,
    OutputsRecord,
    SandboxRecord,
    SourceRecord,
    TriggerFile,
    Triggers,
)
from agent_runner.outputs_spec import CacheSpec, OutputsSpec
from agent_runner.recent import MAX_KNOWN_BYTES, Recent
from agent_runner.sandbox_spec import SandboxSpec
from agent_runner.workflow_spec import WorkflowSpec, canonical_condition
from runner.v1 import agent_service_pb2, job_pb2

_NANOSECONDS = 1_000_000_000
_MICROSECONDS = 1_000_000

_END_REASON_TO_PB = {
    reason: job_pb2.EndReason.Value(f"END_REASON_{reason.name}") for reason in EndReason
}
_END_REASON_FROM_PB: dict[int, EndReason] = {
    number: reason for reason, number in _END_REASON_TO_PB.items()
}
_NO_SOURCE = SourceSpec()
_SOURCE_DEFAULTS = asdict(_NO_SOURCE)
"""By field, whose names are those of the message."""
_UNSET_SOURCE_PB, _NO_SOURCE_PB = job_pb2.SourceSpec(), job_pb2.SourceSpec(**_SOURCE_DEFAULTS)
_SANDBOX_DEFAULTS = asdict(SandboxSpec())
KNOWN_SANDBOXES = 64
KNOWN_JOBS = 64


def job_spec_to_pb(spec: JobSpec) -> job_pb2.JobSpec:
    """Return the message of a valid specification, with every default written out; nobody may change it."""
    return _JOBS_PB.of(spec)


def _job_spec_to_pb(spec: JobSpec) -> job_pb2.JobSpec:
    idle_timeout = None
    if spec.idle_timeout_s is not None:
        idle_timeout = duration_to_pb(spec.idle_timeout_s)
    return job_pb2.JobSpec(
        name=spec.name,
        argv=spec.argv,
        env=spec.env,
        source=_source_to_pb(spec.source),
        ci_source=None if spec.ci_source.kind == "none" else _source_to_pb(spec.ci_source),
        container_image=spec.container_image,
        code_dir=spec.code_dir,
        job_dir=spec.job_dir,
        timeout=duration_to_pb(spec.timeout_s),
        idle_timeout=idle_timeout,
        sandbox=_sandbox_spec_to_pb(spec.sandbox),
        labels=spec.labels,
        project=spec.project,
        priority=spec.priority,
        retries=None if spec.retries is None else _retries_to_pb(spec.retries),
        concurrency=None
        if spec.concurrency is None
        else job_pb2.ConcurrencySpec(group=spec.concurrency.group, limit=spec.concurrency.limit),
        depends_on=spec.depends_on,
        not_before_time=time_to_pb(spec.not_before_us),
        max_attempts=spec.max_attempts,
        masking=spec.masking,
        outputs=_outputs_to_pb(spec.outputs),
        cache=None
        if spec.cache is None
        else job_pb2.CacheSpec(inputs=spec.cache.inputs, key=spec.cache.key),
        condition=spec.condition,
        workflow=None if spec.workflow is None else _workflow_to_pb(spec.workflow),
        trigger_secrets=spec.trigger_secrets,
        inputs=spec.inputs,
    )


_JOBS_PB = Recent(_job_spec_to_pb, job_pb2.JobSpec.ByteSize)
"""A job is converted for its request id, its answer and its assignment."""


def job_spec_from_pb(message: job_pb2.JobSpec) -> JobSpec:
    """Return the specification that a message asks for, valid or not; equal messages share one.

    Raises:
        InvalidJobSpecError: It names a reason to retry that only a newer peer knows.
    """
    data = message.SerializeToString()
    return _known_job_spec(data) if len(data) <= MAX_KNOWN_BYTES else _job_spec(message)


def _job_spec(message: job_pb2.JobSpec) -> JobSpec:
    idle_timeout_s = None
    if message.HasField("idle_timeout"):
        idle_timeout_s = duration_from_pb(message.idle_timeout)
    return JobSpec(
        argv=tuple(message.argv),
        name=message.name or "job",
        env=dict(message.env),
        source=_source_from_pb(message.source),
        ci_source=_source_from_pb(message.ci_source),
        container_image=message.container_image,
        code_dir=message.code_dir or "/job/src",
        job_dir=message.job_dir,
        timeout_s=duration_from_pb(message.timeout)
        if message.HasField("timeout")
        else DEFAULT_TIMEOUT_S,
        idle_timeout_s=idle_timeout_s,
        sandbox=_sandbox_spec_from_pb(message.sandbox),
        labels=dict(message.labels),
        project=message.project,
        priority=message.priority,
        retries=_retries_from_pb(message.retries) if message.HasField("retries") else None,
        concurrency=_concurrency_from_pb(message),
        depends_on=tuple(message.depends_on),
        not_before_us=time_from_pb(message.not_before_time)
        if message.HasField("not_before_time")
        else None,
        max_attempts=message.max_attempts,
        masking=message.masking,
        outputs=_outputs_from_pb(message.outputs),
        cache=CacheSpec(inputs=tuple(message.cache.inputs), key=message.cache.key)
        if message.HasField("cache")
        else None,
        condition=canonical_condition(message.condition),
        workflow=_workflow_from_pb(message.workflow) if message.HasField("workflow") else None,
        trigger_secrets=tuple(message.trigger_secrets),
        inputs=tuple(message.inputs),
    )


# The same job comes in a batch, again and again, or is tried again.
@lru_cache(maxsize=KNOWN_JOBS)
def _known_job_spec(data: bytes) -> JobSpec:
    return _job_spec(job_pb2.JobSpec.FromString(data))


def _workflow_to_pb(workflow: WorkflowSpec) -> job_pb2.WorkflowSpec:
    return job_pb2.WorkflowSpec(id=workflow.id, name=workflow.name, vars_json=workflow.vars_json)


def _workflow_from_pb(message: job_pb2.WorkflowSpec) -> WorkflowSpec:
    return WorkflowSpec(id=message.id, name=message.name, vars_json=message.vars_json or "{}")


def _outputs_to_pb(outputs: OutputsSpec) -> job_pb2.OutputsSpec | None:
    if not outputs.paths:
        return None
    return job_pb2.OutputsSpec(
        paths=outputs.paths, max_bytes=outputs.max_bytes, max_files=outputs.max_files
    )


def _outputs_from_pb(message: job_pb2.OutputsSpec) -> OutputsSpec:
    return OutputsSpec(
        paths=tuple(message.paths), max_bytes=message.max_bytes, max_files=message.max_files
    )


def output_files_to_pb(files: Iterable[OutputFile]) -> list[job_pb2.Artifact]:
    """Return the messages of files that a job left."""
    return [
        job_pb2.Artifact(name=file.name, sha256=file.sha256, size_bytes=file.size, mode=file.mode)
        for file in files
    ]


def output_files_from_pb(messages: Iterable[job_pb2.Artifact]) -> tuple[OutputFile, ...]:
    """Return the files that messages describe, whatever they are called."""
    return tuple(
        OutputFile(each.name, each.sha256, each.size_bytes, each.mode) for each in messages
    )


def _source_to_pb(source: SourceSpec) -> job_pb2.SourceSpec:
    if source == _NO_SOURCE:
        return _NO_SOURCE_PB
    return job_pb2.SourceSpec(**{name: getattr(source, name) for name in _SOURCE_DEFAULTS})


def _source_from_pb(message: job_pb2.SourceSpec) -> SourceSpec:
    if message in (_UNSET_SOURCE_PB, _NO_SOURCE_PB):
        return _NO_SOURCE
    return SourceSpec(**_filled(message, _SOURCE_DEFAULTS))


def _sandbox_spec_to_pb(sandbox: SandboxSpec) -> job_pb2.SandboxSpec:
    # What has lists may be large.
    listed = sandbox.hosts or sandbox.container_only
    return _new_sandbox_spec_pb(sandbox) if listed else _known_sandbox_spec_pb(sandbox)


def _new_sandbox_spec_pb(sandbox: SandboxSpec) -> job_pb2.SandboxSpec:
    return job_pb2.SandboxSpec(**{name: getattr(sandbox, name) for name in _SANDBOX_DEFAULTS})


def _sandbox_spec_from_pb(message: job_pb2.SandboxSpec) -> SandboxSpec:
    data = message.SerializeToString()
    return (_known_sandbox_spec if len(data) <= MAX_KNOWN_BYTES else _sandbox_spec)(data)


def _sandbox_spec(data: bytes) -> SandboxSpec:
    message = job_pb2.SandboxSpec.FromString(data)
    return SandboxSpec(**_filled(message, _SANDBOX_DEFAULTS))


# Most jobs ask for one of a few, and a message has more than twenty fields to go through.
_known_sandbox_spec = lru_cache(maxsize=KNOWN_SANDBOXES)(_sandbox_spec)
_known_sandbox_spec_pb = lru_cache(maxsize=KNOWN_SANDBOXES)(_new_sandbox_spec_pb)
"""Nobody may change what it returns: put into another message it is copied."""


def _filled(message: Message, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a message, the default for each that is empty, and a tuple for each list."""
    values = {name: getattr(message, name) or default for name, default in defaults.items()}
    return {
        name: tuple(value) if isinstance(defaults[name], tuple) else value
        for name, value in values.items()
    }


def _retries_to_pb(retries: RetryPolicy) -> job_pb2.RetryPolicy:
    return job_pb2.RetryPolicy(
        max=retries.max,
        backoff=duration_to_pb(retries.backoff_s) if retries.backoff_s else None,
        exit_codes=retries.exit_codes,
        end_reasons=[_END_REASON_TO_PB[reason] for reason in retries.end_reasons],
    )


def _concurrency_from_pb(message: job_pb2.JobSpec) -> ConcurrencySpec | None:
    if not message.HasField("concurrency"):
        return None
    asked = message.concurrency
    return ConcurrencySpec(group=asked.group, limit=asked.limit or 1)


def _retries_from_pb(message: job_pb2.RetryPolicy) -> RetryPolicy:
    return RetryPolicy(
        max=message.max,
        backoff_s=duration_from_pb(message.backoff) if message.HasField("backoff") else 0.0,
        exit_codes=tuple(message.exit_codes),
        end_reasons=_end_reasons_from_pb(message.end_reasons),
    )


def _end_reasons_from_pb(numbers: Iterable[int]) -> tuple[EndReason, ...]:
    try:
        return tuple(_END_REASON_FROM_PB[number] for number in numbers)
    except KeyError as error:
        raise InvalidJobSpecError(
            "retries.on", f"{error.args[0]} is not the number of an end reason"
        ) from None


@lru_cache(maxsize=KNOWN_SANDBOXES)
def sandbox_to_pb(record: SandboxRecord) -> job_pb2.SandboxInfo:
    """Return the message of the sandbox that an attempt really got; nobody may change it. Most get the same."""
    return job_pb2.SandboxInfo(
        kind=record.kind,
        tier=record.tier,
        walls_not_held=record.walls_not_held,
        limits=[
            job_pb2.SandboxLimit(name=name, value=value, by=by) for name, value, by in record.limits
        ],
    )


def sandbox_from_pb(message: job_pb2.SandboxInfo) -> SandboxRecord:
    """Return the sandbox that a message describes."""
    return SandboxRecord(
        kind=message.kind,
        tier=message.tier,
        walls_not_held=tuple(message.walls_not_held),
        limits=tuple(LimitRecord(each.name, each.value, each.by) for each in message.limits),
    )


def source_record_to_pb(record: SourceRecord) -> job_pb2.SourceInfo | None:
    """Return the message of what the sources of an attempt were; None if neither is from git."""
    if not (record.commit or record.ci_commit):
        return None
    return job_pb2.SourceInfo(commit=record.commit, ci_commit=record.ci_commit)


def end_reason_to_pb(reason: EndReason | None) -> job_pb2.EndReason.ValueType:
    """Return the number of a reason; UNSPECIFIED for what has not ended."""
    return job_pb2.END_REASON_UNSPECIFIED if reason is None else _END_REASON_TO_PB[reason]


def end_reason_from_pb(number: int) -> EndReason | None:
    """Return the reason of a number; None for UNSPECIFIED and for one that only a newer peer knows."""
    return _END_REASON_FROM_PB.get(number)


def lease_to_pb(job_id: str, attempt: int, lease_token: str) -> agent_service_pb2.LeaseRef:
    """Return the message of a lease, whose type differs at the two ends."""
    return agent_service_pb2.LeaseRef(job_id=job_id, attempt=attempt, lease_token=lease_token)


def outcome_from_pb(
    message: agent_service_pb2.FinishAttemptRequest, end_reason: EndReason
) -> Outcome:
    """Return the end that an agent-runner reports; the caller has checked its reason."""
    return Outcome(
        end_reason=end_reason,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        message=message.message,
        sandbox=sandbox_from_pb(message.sandbox),
        source=SourceRecord(commit=message.source.commit, ci_commit=message.source.ci_commit),
        log=LogSummary(
            length=message.log_bytes,
            sha256=message.log_sha256,
            truncated=message.log_truncated,
        ),
        outputs=OutputsRecord(
            files=output_files_from_pb(message.outputs), error=message.outputs_error
        ),
        interrupted=message.interrupted,
        returned=message.returned,
        triggers=triggers_from_pb(message.triggers) if message.HasField("triggers") else None,
        workflow_output=message.workflow_output,
    )


def triggers_to_pb(triggers: Triggers | None) -> agent_service_pb2.Triggers | None:
    """Return the message of the jobs that are to follow an attempt."""
    if triggers is None:
        return None
    files = [
        agent_service_pb2.TriggerFile(name=name, content=content)
        for name, content in triggers.files
    ]
    return agent_service_pb2.Triggers(document=triggers.document, files=files)


def triggers_from_pb(message: agent_service_pb2.Triggers) -> Triggers:
    """Return the jobs that an agent-runner reports to follow, valid or not."""
    files = (TriggerFile(name=each.name, content=each.content) for each in message.files)
    return Triggers(document=message.document, files=tuple(files))


def duration_to_pb(seconds: float) -> Duration:
    """Return the message of a span of time."""
    whole, nanos = divmod(round(seconds * _NANOSECONDS), _NANOSECONDS)
    return Duration(seconds=whole, nanos=nanos)


def duration_from_pb(message: Duration) -> float:
    """Return the seconds of a span of time."""
    return message.seconds + message.nanos / _NANOSECONDS


def time_to_pb(time_us: int | None) -> Timestamp | None:
    """Return the message of a moment in microseconds since the epoch; None for none."""
    if time_us is None:
        return None
    seconds, micros = divmod(time_us, _MICROSECONDS)
    return Timestamp(seconds=seconds, nanos=micros * 1000)


def time_from_pb(message: Timestamp) -> int:
    """Return the microseconds since the epoch of a moment, rounded up."""
    return message.seconds * _MICROSECONDS - (-message.nanos // 1000)
