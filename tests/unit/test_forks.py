"""What a child of the tests' own process must not do before it executes a program."""

from __future__ import annotations

import gc
import os


def test_a_fork_collects_no_garbage():
    """Its finalizers may wait for threads, which a fork does not have; the tests go on collecting."""
    child = os.fork()
    if child == 0:
        os._exit(gc.isenabled())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert gc.isenabled()
