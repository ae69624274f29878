"""From a submit request to a job that may be stored: parse, check, identify. Nothing here touches the store."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from agent_runner import wire
from agent_runner.errors import InvalidJobSpecError
from agent_runner.job_spec import MAX_SPEC_BYTES, JobSpec
from agent_runner.project_names import PROJECT_NAME, PROJECT_RULE
from agent_runner.recent import MAX_KNOWN_BYTES, Recent
from agent_runner.secret_refs import check_refs
from daemon.errors import InvalidJobFileError, UsageError
from daemon.jobs.ids import new_job_id
from daemon.jobs.models import NewJob
from daemon.jobs.queue_keys import request_key
from daemon.server.caller import Caller
from runner.v1 import job_service_pb2

MAX_BATCH = 1000
MAX_BATCH_BYTES = 3 << 20
"""Of all specifications of a batch: the answer repeats them and must fit into one message of 4 MiB."""
PROJECTS = 32
"""Into which jobs were put last."""
REQUEST_ID = re.compile(r"[\x20-\x7e]{1,128}")


_Files = dict[bytes, JobSpec]


async def new_jobs(
    requests: Sequence[job_service_pb2.SubmitJobRequest], caller: Caller
) -> list[NewJob]:
    """Return the jobs that requests ask for; called per submit. A job file that repeats is parsed once.

    Raises:
        InvalidJobSpecError: A specification breaks a rule; among several, names the request.
        InvalidJobFileError: A job file cannot be read as a job.
        ProjectNotAllowedError: A project is not the caller's.
        UsageError: A request holds no job, a request id is malformed, or there are too many or too large ones.
    """
    if not 0 < len(requests) <= MAX_BATCH:
        raise UsageError(f"requests must hold 1 to {MAX_BATCH} jobs, not {len(requests)}")
    files: _Files = {}
    jobs: list[NewJob] = []
    total = 0
    for position, request in enumerate(requests):
        try:
            job, size = await _new_job(request, files, jobs, caller)
        except InvalidJobSpecError as error:
            raise _in_batch(error, position, len(requests)) from None
        total += size
        if total > MAX_BATCH_BYTES:
            raise UsageError("the jobs of one call are larger than 3 MiB; send them in several")
        jobs.append(job)
    return jobs


async def _new_job(
    request: job_service_pb2.SubmitJobRequest,
    files: _Files,
    before: Sequence[NewJob],
    caller: Caller,
) -> tuple[NewJob, int]:
    request_id = checked_request_id(request.request_id)
    asked = await _spec(request, files)
    spec = asked
    if request.depends_on_requests:
        spec = _linked(asked, request.depends_on_requests, before)
        _check(spec)
        # As it was asked for: the ids of the jobs before it are others each time, and the project is part of the request id.
        serialised = _serialised(asked)
    else:
        serialised = _CHECKED.of(asked)
    project = _project(spec.project or request.project, caller)
    known = len(serialised) <= MAX_KNOWN_BYTES  # else little would be saved by remembering much
    spec = _placing(project).of(spec) if known else replace(spec, project=project)
    job = NewJob(
        id=new_job_id(),
        spec=spec,
        request_id=request_key(spec.project, request_id),
        payload_sha256=_payload_sha256(request, asked, serialised),
    )
    return job, len(serialised)


@lru_cache(maxsize=PROJECTS)
def _placing(project: str) -> Recent[JobSpec, JobSpec]:
    """Return what puts small jobs into a project."""
    return Recent(lambda spec: replace(spec, project=project), lambda _: 0)


def _project(named: str, caller: Caller) -> str:
    if named and not PROJECT_NAME.fullmatch(named):
        raise InvalidJobSpecError("project", f"must be {PROJECT_RULE}")
    return caller.project_of(named)


def _linked(spec: JobSpec, positions: Sequence[int], before: Sequence[NewJob]) -> JobSpec:
    """Return a job that also depends on jobs of earlier requests of the same call."""
    for number, position in enumerate(positions):
        if not 0 <= position < len(before):
            field = f"depends_on_requests.{number}"
            raise InvalidJobSpecError(field, "is not the position of an earlier request")
    ids = (before[position].id for position in positions)
    return replace(spec, depends_on=(*spec.depends_on, *ids))


def _payload_sha256(
    request: job_service_pb2.SubmitJobRequest, spec: JobSpec, serialised: bytes
) -> str:
    digest = hashlib.sha256(serialised)
    if request.HasField("job_file") and spec.not_before_us is not None:
        # A delay counts from each call, so the moment differs when the file is submitted again.
        digest = hashlib.sha256(_serialised(replace(spec, not_before_us=None)))
        digest.update(request.job_file.content)
        for overlay in request.job_file.overlays:
            digest.update(b"\0" + overlay.content)
    for position in request.depends_on_requests:
        digest.update(b"\0%d" % position)
    return digest.hexdigest()


async def _spec(request: job_service_pb2.SubmitJobRequest, files: _Files) -> JobSpec:
    form = request.WhichOneof("job")
    if form == "spec":
        return wire.job_spec_from_pb(request.spec)
    if form is None:
        raise UsageError("the request holds no job: set spec or job_file")
    file = request.job_file
    key = file.SerializeToString()
    if key not in files:
        files[key] = await asyncio.to_thread(_load_job_file, file)
    return files[key]


def _load_job_file(file: job_service_pb2.JobFile) -> JobSpec:
    # Late, because it imports pydantic and a YAML parser: a fifth of a second and 14 MB, once, and only
    # where job files are sent.
    from daemon.jobfile.loader import load_job_file  # noqa: PLC0415
    from daemon.jobfile.overlay import Overlay  # noqa: PLC0415

    for each in (file, *file.overlays):
        if len(each.content) > MAX_SPEC_BYTES:
            raise InvalidJobFileError(f"{each.name}: the job file is larger than 1 MiB")
    return load_job_file(
        file.content,
        file.name,
        _folder(file),
        overlays=[Overlay(each.name, each.content, _folder(each)) for each in file.overlays],
        allow_secret_overrides=file.allow_secret_overrides,
    )


def _folder(file: job_service_pb2.JobFile) -> Path:
    folder = Path(file.base_dir or "/")
    if not folder.is_absolute():
        raise UsageError("job_file.base_dir must be an absolute path")
    return folder


def _serialised(spec: JobSpec) -> bytes:
    # Maps are written in the order of their keys, so equal specifications are equal bytes.
    try:
        serialised = wire.job_spec_to_pb(spec).SerializeToString(deterministic=True)
    except ValueError:
        raise InvalidJobSpecError("job", "holds a number that is too large for its field") from None
    if len(serialised) > MAX_SPEC_BYTES:
        raise InvalidJobSpecError("job", "is larger than 1 MiB in all")
    return serialised


def _check(spec: JobSpec) -> None:
    spec.validate()
    check_refs(spec)


def _checked(spec: JobSpec) -> bytes:
    _check(spec)
    return _serialised(spec)


_CHECKED = Recent(_checked, len)
"""Small jobs that were found good, as bytes."""


def checked_request_id(request_id: str) -> str | None:
    """Return the request id of a call; None if it has none.

    Raises:
        UsageError: It is malformed.
    """
    if not request_id:
        return None
    if not REQUEST_ID.fullmatch(request_id):
        raise UsageError("request_id must be 1 to 128 printable ASCII characters")
    return request_id


def _in_batch(error: InvalidJobSpecError, position: int, size: int) -> InvalidJobSpecError:
    if size == 1:
        return error
    return InvalidJobSpecError(f"requests[{position}].{error.field}", error.problem)
