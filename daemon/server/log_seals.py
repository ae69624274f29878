"""Seals logs from the event loop, which must not wait for disks."""

from __future__ import annotations

import asyncio

from daemon.jobs.log_files import LogFiles


async def seal(logs: LogFiles, job_id: str, attempt: int) -> None:
    """Let nothing be added to the log of an attempt; called before anybody is told that it has ended."""
    if not logs.try_seal(job_id, attempt):
        await asyncio.to_thread(logs.seal, job_id, attempt)
