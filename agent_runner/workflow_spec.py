"""What a job says of its place among others: the condition under which it starts, and the workflow that it is part of."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent_runner.errors import InvalidJobSpecError

ANY_FAILED = "any_failed"
ALWAYS = "always"
CONDITIONS = ("", ANY_FAILED, ALWAYS)
"""Empty: all that the job depends on succeeded."""
_ALIASES = {
    **dict.fromkeys(("", "all_success", "success"), ""),
    **dict.fromkeys((ANY_FAILED, "failure"), ANY_FAILED),
    ALWAYS: ALWAYS,
}
_ARGUMENT = re.compile(r"\((?:needs)?\)\Z")

MAX_VARS_BYTES = 64 << 10
MAX_VAR_NAME_CHARS = 300
MAX_TRIGGER_SECRETS = 100
_ID = re.compile(r"[0-9a-z]{1,64}")
_PATTERN = re.compile(r"[A-Za-z0-9/_*?:-]{1,400}")
MAX_WORKFLOW_NAME_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSpec:
    """The workflow of a job: those that share its id share variables."""

    id: str
    name: str = ""
    """For people."""
    vars_json: str = "{}"
    """The variables, as a JSON object: those at the start; where an attempt begins, those of the jobs before it too."""


def canonical_condition(text: str) -> str:
    """Return one of ``CONDITIONS`` for any of its spellings, and any other text unchanged, which no check lets pass."""
    return _ALIASES.get(_ARGUMENT.sub("", text), text)


def check_condition(condition: str, depends_on: tuple[str, ...]) -> None:
    """Check the condition of a job.

    Raises:
        InvalidJobSpecError: There is no such condition, or nothing that it could be about.
    """
    if condition not in CONDITIONS:
        raise InvalidJobSpecError("condition", "must be all_success, any_failed or always")
    if condition and not depends_on:
        raise InvalidJobSpecError("condition", "needs depends_on")


def check_workflow(workflow: WorkflowSpec | None, trigger_secrets: tuple[str, ...]) -> None:
    """Check the workflow of a job, and what the jobs that it triggers may refer to.

    Raises:
        InvalidJobSpecError: The first rule that is broken.
    """
    if len(trigger_secrets) > MAX_TRIGGER_SECRETS:
        raise InvalidJobSpecError("triggers.secrets", f"lists more than {MAX_TRIGGER_SECRETS}")
    for position, pattern in enumerate(trigger_secrets):
        if not _PATTERN.fullmatch(pattern) or ":" not in pattern:
            raise InvalidJobSpecError(
                f"triggers.secrets.{position}", "must be like PATH:KEY; * stands for any letters"
            )
    if workflow is None:
        return
    if not _ID.fullmatch(workflow.id):
        raise InvalidJobSpecError("workflow.id", "must be 1 to 64 small letters and digits")
    if len(workflow.name) > MAX_WORKFLOW_NAME_CHARS or not workflow.name.isprintable():
        raise InvalidJobSpecError(
            "workflow.name", f"must be at most {MAX_WORKFLOW_NAME_CHARS} printable characters"
        )
    try:
        check_vars(json.loads(workflow.vars_json))
    except (ValueError, RecursionError) as error:
        raise InvalidJobSpecError("workflow.vars", str(error)) from None


def check_vars(variables: object) -> dict[str, Any]:
    """Return the variables of a workflow if they can be some.

    Raises:
        ValueError: They cannot; says why.
    """
    if not isinstance(variables, dict):
        raise ValueError("must be an object of names and values")  # noqa: TRY004 - as for the rest
    for name in variables:
        if not name or len(name) > MAX_VAR_NAME_CHARS or not name.isprintable():
            raise ValueError(f"a name must have 1 to {MAX_VAR_NAME_CHARS} printable characters")
    try:
        length = len(json.dumps(variables, allow_nan=False))
    except ValueError:
        raise ValueError("hold a number that JSON does not have") from None
    if length > MAX_VARS_BYTES:
        raise ValueError(f"are larger than {MAX_VARS_BYTES // 1024} KiB")
    return variables


def vars_json(variables: Mapping[str, Any]) -> str:
    """Return variables as they are stored and sent."""
    return json.dumps(variables, separators=(",", ":"), sort_keys=True)
