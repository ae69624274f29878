"""Floors: the least that the same work can cost on this machine, by the same interpreter."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

TRUE = "/bin/true"
PASS = (sys.executable, "-c", "pass")


def spawn_true() -> None:
    """Spawn, wait and collect the output, as the standard library does it."""
    subprocess.run([TRUE], capture_output=True, check=True)


def rate(threads: int, count: int, work: Callable[[], None] = spawn_true) -> float:
    """Return how often a second several threads together do some work."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: None, range(threads)))  # the threads start outside the measurement
        start = time.perf_counter()
        list(pool.map(lambda _: work(), range(count)))
        return count / (time.perf_counter() - start)


def idle_spawn_ms(count: int, gap_s: float) -> float:
    """Return the median time of a spawn on a system that was idle before."""
    times = []
    for _ in range(count):
        time.sleep(gap_s)
        start = time.perf_counter()
        spawn_true()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def command_ms(argv: Sequence[str], env: Mapping[str, str] | None = None) -> float:
    """Return how long a command takes from its spawn to its end.

    Raises:
        RuntimeError: It failed.
    """
    start = time.perf_counter()
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    elapsed = time.perf_counter() - start
    if done.returncode != 0:
        raise RuntimeError(f"{argv}: exit {done.returncode}: {done.stderr.decode()[-500:]}")
    return elapsed * 1000
