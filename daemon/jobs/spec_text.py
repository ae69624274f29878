"""Specifications of jobs as the text that is stored, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import lru_cache
from typing import Any

from agent_runner.job_spec import ConcurrencySpec, JobSpec, RetryPolicy, SourceSpec
from agent_runner.outcome import EndReason
from agent_runner.outputs_spec import CacheSpec, OutputsSpec
from agent_runner.project_names import DEFAULT_PROJECT
from agent_runner.recent import Recent
from agent_runner.sandbox_spec import SandboxSpec
from agent_runner.workflow_spec import WorkflowSpec

SPARED = frozenset(
    {
        "retries",
        "concurrency",
        "depends_on",
        "not_before_us",
        "max_attempts",
        "masking",
        "container_image",
        "cache",
        "condition",
        "workflow",
        "trigger_secrets",
        "inputs",
    }
)
"""Fields of a specification that are not written if they ask for nothing."""
SPARED_BY_SANDBOX = frozenset(
    {
        "cpus",
        "disk_bytes",
        "open_files",
        "hosts",
        "require",
        "unprotected",
        "fallback",
        "container_only",
        "reuse",
        "nested",
        "cache",
    }
)
"""The same of its ``sandbox``."""
_NO_SOURCE = SourceSpec()
_NOTHING = {"project": DEFAULT_PROJECT, "ci_source": _NO_SOURCE, "outputs": OutputsSpec()}
"""What other fields hold if they ask for nothing."""
KNOWN_SPECS = 512
MAX_KNOWN_CHARS = 8192
"""Longer specs are decoded each time, so that what is remembered stays small."""


def encode_spec(spec: JobSpec) -> str:
    """Return a spec as JSON. Every field that has a default is written, so that a later default does not change old jobs.

    What a job does not ask of the queue is left out: that will always mean nothing.
    """
    return _TEXTS.of(spec)


def decode_spec(text: str) -> JobSpec:
    """Return the spec in a JSON text.

    Raises:
        ValueError, TypeError, KeyError: The text was not made by ``encode_spec``.
    """
    return _decode_known(text) if len(text) <= MAX_KNOWN_CHARS else _decode(text)


def _plain(value: object) -> object:
    if type(value) is JobSpec:
        fields = {name: getattr(value, name) for name in JobSpec.__dataclass_fields__}
        for name in SPARED:
            if not fields[name]:
                del fields[name]
        for name, nothing in _NOTHING.items():
            if fields[name] == nothing:
                del fields[name]
        return fields
    if type(value) is SandboxSpec:
        return {
            name: field
            for name in SandboxSpec.__dataclass_fields__
            if (field := getattr(value, name)) or name not in SPARED_BY_SANDBOX
        }
    if type(value) is SourceSpec:
        fields = {name: getattr(value, name) for name in SourceSpec.__dataclass_fields__}
        return {
            name: field
            for name, field in fields.items()
            if name in ("kind", "path") or field != getattr(_NO_SOURCE, name)
        }
    if is_dataclass(value):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a job spec cannot hold a {type(value).__name__}")


def _decode(text: str) -> JobSpec:
    values = json.loads(text)
    values["argv"] = tuple(values["argv"])
    values.setdefault("project", DEFAULT_PROJECT)
    values["source"] = SourceSpec(**values["source"])
    if (ci_source := values.get("ci_source")) is not None:
        values["ci_source"] = SourceSpec(**ci_source)
    values["sandbox"] = _decode_sandbox(values["sandbox"])
    if (outputs := values.get("outputs")) is not None:
        values["outputs"] = OutputsSpec(**{**outputs, "paths": tuple(outputs["paths"])})
    values["depends_on"] = tuple(values.get("depends_on", ()))
    if (cache := values.get("cache")) is not None:
        values["cache"] = CacheSpec(inputs=tuple(cache["inputs"]), key=cache["key"])
    if (retries := values.get("retries")) is not None:
        values["retries"] = _decode_retries(retries)
    if (concurrency := values.get("concurrency")) is not None:
        values["concurrency"] = ConcurrencySpec(**concurrency)
    if (workflow := values.get("workflow")) is not None:
        values["workflow"] = WorkflowSpec(**workflow)
    values["trigger_secrets"] = tuple(values.get("trigger_secrets", ()))
    values["inputs"] = tuple(values.get("inputs", ()))
    return JobSpec(**values)


def _decode_sandbox(values: dict[str, Any]) -> SandboxSpec:
    for name in ("hosts", "require", "container_only"):
        if name in values:
            values[name] = tuple(values[name])
    return SandboxSpec(**values)


def _decode_retries(values: dict[str, Any]) -> RetryPolicy:
    return RetryPolicy(
        max=values["max"],
        backoff_s=values["backoff_s"],
        exit_codes=tuple(values["exit_codes"]),
        end_reasons=tuple(map(EndReason, values["end_reasons"])),
    )


_TEXTS = Recent(json.JSONEncoder(default=_plain, separators=(",", ":")).encode, len)
# The same few specs are read again at each step of their jobs and on each page of a list.
_decode_known = lru_cache(maxsize=KNOWN_SPECS)(_decode)
