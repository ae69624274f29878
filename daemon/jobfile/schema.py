"""The JSON Schema of a job file, made from the model that reads it, so that the two cannot differ.

``docs/job.schema.json`` is the published copy; a test holds it equal.
"""

from __future__ import annotations

from typing import Any

from daemon.jobfile.dialect import NESTED, NOT_YET, OLDER
from daemon.jobfile.model import JobFields

DRAFT = "https://json-schema.org/draft/2020-12/schema"
COMMENT = "In the first line of a YAML file: # yaml-language-server: $schema=PATH-OR-URL"

_SOURCE = {
    "type": "none, or a copy of source_path, or a checkout of source_url.",
    "path": "A folder of the agent-runner's host, relative to this file, for copy.",
    "url": "https://, ssh:// or file://, without a password, for git.",
    "ref": "A branch, a tag, a full refs/… or a commit id; the default branch otherwise.",
    "depth": "How many commits of history; all otherwise.",
    "submodules": "Whether submodules are checked out too.",
    "lfs": "Large files of git-lfs: auto fetches them where it is installed, on needs it, off leaves pointers.",
    "credentials": "A text with ${secret:PATH:KEY}: a token, USER:PASSWORD, or a private key for ssh.",
}
DESCRIPTIONS = {
    "name": "For people; the file's name otherwise.",
    "description": "For people.",
    "job_command": "A text for sh -c, or a list of words.",
    "steps": "Commands that run in order, in one sandbox, up to the first failure; instead of job_command.",
    "raw_command": "Says that nothing is put around the command; nothing ever is.",
    **{f"source_{name}": text for name, text in _SOURCE.items()},
    **{
        f"ci_source_{name}": f"Trusted scripts, at /job/ci: {text}"
        for name, text in _SOURCE.items()
    },
    "container_image": "The image of the job's container, where it runs in one; the operator's otherwise.",
    "code_dir": "Where the source lies: /job or below.",
    "job_dir": "Where the command starts: /job or below; code_dir otherwise.",
    "env": "Variables of the command; a value may hold ${secret:PATH:KEY}.",
    "timeout_seconds": "Wall clock of one attempt.",
    "idle_timeout_seconds": "Time without any output.",
    "sandbox": "The place where the command runs.",
    "labels": "What an agent-runner must offer.",
    "project": "Whose job it is; that of the token otherwise.",
    "priority": "Higher runs first, -1000 to 1000.",
    "retries": "Which failures are tried again.",
    "concurrency": "A group's name, or a group and how many of its jobs may run at once.",
    "depends_on": "Ids of jobs that must have succeeded before.",
    "not_before": "A time with its zone, or a delay from the submit, such as 90s or 1h30m.",
    "masking": "What is masked in the log beside the values of references.",
    "max_attempts": "Bounds failures and losses together.",
    "outputs": "Patterns of files below code_dir that are kept after an attempt; with bounds, paths holds the patterns.",
    "cache": "Skips the job if it has succeeded before with the same definition and inputs; its outputs come from then.",
    "disable_run_local": "Whether run-local refuses this job.",
    "inputs": "Names of those of depends_on whose outputs are put below /job/inputs.",
    "condition": "Which ends of depends_on let it start: all_success, any_failed or always.",
    "triggers": "secrets: patterns of PATH:KEY that triggered jobs may refer to. Nothing here starts a job by an event.",
    "paths": "For people.",
}


def job_schema() -> dict[str, Any]:
    """Return the schema; the older spellings are in it as deprecated."""
    schema = JobFields.model_json_schema()
    fields: dict[str, Any] = schema["properties"]
    for name, field in fields.items():
        field.pop("title", None)
        field["description"] = DESCRIPTIONS[name]
    for older, present in OLDER.items():
        if present not in NOT_YET:
            fields[older] = {**fields[present], "deprecated": True}
            fields[older]["description"] = f"The first generation's name of {present}."
    for name, inside in NESTED.items():
        described = "any field" if inside is None else ", ".join(inside)
        fields[name] = {
            "type": "object",
            "deprecated": name not in ("source", "ci_source"),
            "description": f"Holds {described}.",
        }
        if inside is not None:
            fields[name]["propertyNames"] = {"enum": list(inside)}
    fields["capabilities"] = {
        "type": "array",
        "items": {"type": "string"},
        "deprecated": True,
        "description": "The first generation's way to ask for labels.",
    }
    commands = ["job_command", "steps", "command", "commands", "job"]
    return {
        "$schema": DRAFT,
        "$comment": COMMENT,
        **schema,
        "title": "A job of runner",
        "description": "docs/job-file.md describes every field.",
        "anyOf": [{"required": [name]} for name in commands],
    }
