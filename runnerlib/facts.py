"""What the runner tells a job in its environment, under its present and its older prefix."""

from __future__ import annotations

import os
from typing import Dict

PREFIXES = ("RUNNER_", "REACTORCIDE_", "RC_")
DEFAULT_ROOT = "/job"
NAMES = (
    "JOB_ID",
    "JOB_NAME",
    "ATTEMPT",
    "JOB_ROOT",
    "CODE_DIR",
    "JOB_DIR",
    "CI_SOURCE_DIR",
    "SOURCE_TYPE",
    "SOURCE_PATH",
    "SOURCE_URL",
    "SOURCE_REF",
    "JOB_COMMAND",
    "WF_ID",
    "WF_NAME",
)


def fact(name: str) -> str:
    """Return what the environment says; empty for nothing."""
    for prefix in PREFIXES:
        value = os.environ.get(prefix + name)
        if value:
            return value
    return ""


def job_root() -> str:
    """Return the workspace of the job."""
    return fact("JOB_ROOT") or DEFAULT_ROOT


def code_dir() -> str:
    """Return where the source lies."""
    return fact("CODE_DIR") or os.path.join(job_root(), "src")


def job_dir() -> str:
    """Return where the command starts."""
    return fact("JOB_DIR") or code_dir()


def resolved() -> Dict[str, str]:
    """Return everything that is known, with the defaults filled in."""
    found = {name.lower(): fact(name) for name in NAMES}
    found["job_root"] = job_root()
    found["code_dir"] = code_dir()
    found["job_dir"] = job_dir()
    found["source_type"] = found["source_type"] or "none"
    return found


def problems() -> Dict[str, str]:
    """Return what is wrong with it, by name; empty if ``runnerlib run`` can use it."""
    found = resolved()
    wrong = {}
    if found["source_type"] not in ("none", "git", "copy"):
        wrong["source_type"] = "must be none, git or copy"
    if found["source_type"] == "git" and not found["source_url"]:
        wrong["source_url"] = "is needed for source_type git"
    if found["source_type"] == "copy" and not os.path.isdir(found["source_path"]):
        wrong["source_path"] = "is no folder"
    root = os.path.realpath(found["job_root"])
    if not os.path.isdir(root):
        wrong["job_root"] = "is no folder"
    for name in ("code_dir", "job_dir"):
        path = os.path.realpath(found[name])
        if path != root and not path.startswith(root + os.sep):
            wrong[name] = "is not below " + found["job_root"]
    return wrong
