"""Reading /proc."""

from __future__ import annotations

import os
import signal

from sandbox import procfs


def stat(pid, ppid):
    """Make a process for the tree tests."""
    return procfs.ProcStat(pid, "x", "S", ppid, 1, 1, 100)


def test_stat_of_a_hostile_name():
    """A command name may hold parentheses, spaces and newlines."""
    text = "42 (a) R 1 (\n) S 7 42 43 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 9999 1 1"
    parsed = procfs.parse_stat(text)
    assert parsed == procfs.ProcStat(42, "a) R 1 (\n", "S", 7, 43, 3, 9999)


def test_a_zombie_leader_with_threads_is_alive():
    """A process whose main thread has ended still runs."""
    assert procfs.ProcStat(1, "x", "Z", 0, 0, 2, 0).alive
    assert not procfs.ProcStat(1, "x", "Z", 0, 0, 1, 0).alive


def test_descendants_exclude_the_roots():
    """All levels below are found, siblings are not."""
    processes = {pid: stat(pid, ppid) for pid, ppid in ((2, 1), (3, 2), (4, 3), (5, 1), (6, 5))}
    assert procfs.descendants(processes, {2}) == {3, 4}
    assert procfs.descendants(processes, {2, 5}) == {3, 4, 6}


def test_parents_stand_before_their_children():
    """Whatever the pids, and what a circle of pids that were used again joins is not lost."""
    given = [stat(3, 9), stat(9, 5), stat(5, 1), stat(4, 5), stat(7, 8), stat(8, 7)]
    order = [each.pid for each in procfs.parents_first(given)]
    assert order[:4] == [5, 9, 4, 3]
    assert sorted(order[4:]) == [7, 8]


def test_a_reused_pid_is_not_opened():
    """A pidfd is given only for the process that was meant."""
    me = procfs.read_stat(os.getpid())
    assert me is not None
    fd = procfs.open_process(me)
    assert fd is not None
    os.close(fd)
    other = procfs.ProcStat(me.pid, "x", "S", 1, 1, 1, me.start_ticks - 1)
    assert procfs.open_process(other) is None


def test_what_is_gone_reads_as_nothing():
    """No function raises for a process that does not exist."""
    pid = 2**22 + 1
    assert procfs.read_stat(pid) is None
    assert procfs.environ_value(pid, "A") is None
    assert not procfs.no_new_privs(pid)


def test_a_long_list_of_children_is_read_in_pieces(monkeypatch):
    """The kernel gives a page of it at a time; here it is made to give less."""
    argv = ["/bin/sleep", "60"]
    children = {os.posix_spawn(argv[0], argv, {}) for _ in range(5)}
    try:
        found = procfs.adopted_children()
        assert children <= found
        monkeypatch.setattr(procfs, "_READ_BYTES", 4)
        monkeypatch.setattr(procfs, "_SURELY_ALL_BYTES", 0)
        assert procfs.adopted_children() == found
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert not children & procfs.adopted_children()
