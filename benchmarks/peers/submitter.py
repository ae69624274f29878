"""The measuring client of a peer, in the peer's interpreter: ``python -m benchmarks.peers.submitter MODULE``.

Answers like ``benchmarks.client``: requests as lines of JSON on stdin, answers on stdout. The module has ``each``, which submits
jobs and returns when all ends were seen, and ``one``, which does so for one job. Nothing but the standard library here.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from typing import Any


def run_true() -> list[Any]:
    """Do the work of one job: the command, its output captured, the result for whoever records it."""
    done = subprocess.run(["/bin/true"], capture_output=True, check=True)
    return [done.returncode, done.stdout.decode()]


def latencies(module: Any, count: int, gap_s: float) -> list[float]:
    """Return the seconds from each submit to its end, one at a time, with idle gaps."""
    times = []
    for _ in range(count):
        time.sleep(gap_s)
        start = time.monotonic()
        module.one()
        times.append(time.monotonic() - start)
    return times


def each(module: Any, jobs: int) -> float:
    """Return the seconds from the first submit to the last end."""
    start = time.monotonic()
    module.each(jobs)
    return time.monotonic() - start


def serve(module: Any) -> None:
    """Answer requests until stdin ends."""
    operations: dict[str, Any] = {"each": each, "latencies": latencies}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": operations[request.pop("op")](module, **request)}
        except Exception as error:  # noqa: BLE001 - whatever a peer raises, the table tells it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(importlib.import_module(sys.argv[1]))
