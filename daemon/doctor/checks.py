"""The registry of all checks, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module

from daemon.doctor.finding import Finding, Level, Subject

Check = Callable[[Subject], Iterable[Finding]]

CHECKS: tuple[tuple[str, str], ...] = (
    ("secrets", "daemon.doctor.secret_checks:check_secrets"),
    ("sandbox", "daemon.doctor.sandbox_checks:check_sandbox"),
)
"""Each area, and its function as ``module:name``, which is imported only when it is run. A new area needs a line here
and nothing else; its function yields findings, asks nobody, changes nothing and ends within some seconds."""


def run_checks(subject: Subject, areas: Sequence[str] = ()) -> list[Finding]:
    """Return the findings of some areas, by default of all, in the order of the registry.

    A check that hits a defect is a finding too: a doctor that dies helps nobody.
    """
    findings: list[Finding] = []
    for area, place in CHECKS:
        if areas and area not in areas:
            continue
        module, _, name = place.partition(":")
        try:
            check: Check = getattr(import_module(module), name)
            findings += check(subject)
        except Exception as error:  # noqa: BLE001 - see above
            text = f"the check itself failed ({type(error).__name__})"
            findings.append(Finding(area, Level.FAILED, text, "report this"))
    return findings
