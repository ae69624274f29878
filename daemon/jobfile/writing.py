"""Writes a job as a file that reads as the same job; references to secrets stay references."""

from __future__ import annotations

import io
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ruamel.yaml import YAML

from agent_runner.job_spec import JobSpec, SourceSpec
from agent_runner.sandbox_spec import SandboxSpec

_DEFAULTS = JobSpec(argv=("x",), name="")
_SHELL = ("/bin/sh", "-c")
_SANDBOX = {
    "memory_bytes": "memory",
    "output_bytes": "output",
    "disk_bytes": "disk",
}
"""Fields of a specification that have another name in a file."""
_PLAIN = ("container_image", "code_dir", "job_dir", "project", "priority", "max_attempts")


def job_file_text(spec: JobSpec, comment: str = "") -> str:
    """Return the YAML text of a job; ``comment`` stands above it, a line for each of its lines.

    What a job depends on is left out: there are no jobs of these ids where the file is run.
    """
    yaml = YAML()
    yaml.width = 4096
    text = io.StringIO()
    yaml.dump(job_file_fields(spec), text)
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + text.getvalue()


def job_file_fields(spec: JobSpec) -> dict[str, Any]:
    """Return the fields of a job file that says what a specification says."""
    fields: dict[str, Any] = {"name": spec.name, "job_command": _command(spec.argv)}
    fields |= _source("source", spec.source) | _source("ci_source", spec.ci_source)
    fields |= {name: getattr(spec, name) for name in _PLAIN if _differs(spec, name)}
    if spec.env:
        fields["env"] = dict(spec.env)
    if _differs(spec, "timeout_s"):
        fields["timeout_seconds"] = spec.timeout_s
    if spec.idle_timeout_s is not None:
        fields["idle_timeout_seconds"] = spec.idle_timeout_s
    if spec.labels:
        fields["labels"] = dict(spec.labels)
    if spec.concurrency is not None:
        fields["concurrency"] = asdict(spec.concurrency)
    if spec.not_before_us is not None:
        moment = datetime.fromtimestamp(spec.not_before_us / 1e6, UTC)
        fields["not_before"] = moment.isoformat().replace("+00:00", "Z")
    if spec.cache is not None:
        fields["cache"] = {"inputs": list(spec.cache.inputs), "key": spec.cache.key}
    if spec.trigger_secrets:
        fields["triggers"] = {"secrets": list(spec.trigger_secrets)}
    fields |= _retries(spec) | _masking(spec) | _outputs(spec)
    sandbox = _sandbox(spec.sandbox)
    return fields | ({"sandbox": sandbox} if sandbox else {})


def _differs(spec: JobSpec, name: str) -> bool:
    return bool(getattr(spec, name) != getattr(_DEFAULTS, name))


def _command(argv: tuple[str, ...]) -> str | list[str]:
    if argv[:2] == _SHELL and len(argv) == len(_SHELL) + 1:
        return argv[-1]
    return list(argv)


def _source(prefix: str, source: SourceSpec) -> dict[str, Any]:
    if source.kind == "none":
        return {}
    given = {f"{prefix}_type": source.kind}
    return given | {
        f"{prefix}_{name}": value
        for name, value in asdict(source).items()
        if name != "kind" and value != getattr(_DEFAULTS.source, name)
    }


def _retries(spec: JobSpec) -> dict[str, Any]:
    retries = spec.retries
    if retries is None:
        return {}
    ends = [*retries.exit_codes, *map(str, retries.end_reasons)]
    fields = {"max": retries.max, "backoff_seconds": retries.backoff_s}
    return {"retries": fields | ({"on": ends} if ends else {})}


def _masking(spec: JobSpec) -> dict[str, Any]:
    if spec.masking == "values":
        return {"masking": {"formats": "off"}}
    return {"masking": spec.masking} if spec.masking else {}


def _outputs(spec: JobSpec) -> dict[str, Any]:
    outputs = spec.outputs
    if not outputs.paths:
        return {}
    bounds = {"max_size": outputs.max_bytes, "max_files": outputs.max_files}
    return {"outputs": {"paths": list(outputs.paths)} | {k: v for k, v in bounds.items() if v}}


def _sandbox(sandbox: SandboxSpec) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in asdict(sandbox).items():
        if value == getattr(_DEFAULTS.sandbox, name) or name == "hosts":
            continue
        if name == "unprotected":
            fields["protect"] = False
        elif name == "network":
            fields["network"] = list(sandbox.hosts) if value == "hosts" else value
        else:
            fields[_SANDBOX.get(name, name)] = list(value) if isinstance(value, tuple) else value
    return fields
