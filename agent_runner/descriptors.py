"""The variables that tell a child the numbers of its inherited descriptors; what they are for: ``handover``.

Imports nothing: the daemon needs the names before it imports anything that it can do without.
"""

from __future__ import annotations

HANDOVER_FD = "RUNNER_HANDOVER_FD"
READY_FD = "RUNNER_READY_FD"
LIFE_FD = "RUNNER_LIFE_FD"
LOCK_FD = "RUNNER_LOCK_FD"
SECRETS_FD = "RUNNER_SECRETS_FD"
