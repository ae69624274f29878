"""An alarm at a time of the wall clock. It rings at that time also when the clock is set or the host was suspended meanwhile.

The event loop's own timers cannot: they count time that passes, not where a clock stands. The system call has no
wrapper in Python 3.11.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from contextlib import suppress

_CLOCK_REALTIME = 0
_TFD_TIMER_ABSTIME = 1
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK and TFD_CLOEXEC have their values
_MICROSECONDS = 1_000_000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanos", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class WallAlarm:
    """One alarm; used on one event loop. ``close`` it.

    Args:
        ring: Is called on the event loop each time that the alarm rings.

    Raises:
        OSError: The system has no timer left.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_REALTIME, _FLAGS)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._ring = ring
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def set_in(self, delay_us: int | None) -> None:
        """Have it ring once when the wall clock is this much later, in place of the time before; None: not at all."""
        value = _Timespec()
        if delay_us is not None:
            at_us = time.time_ns() // 1000 + max(delay_us, 1)
            seconds, micros = divmod(at_us, _MICROSECONDS)
            value = _Timespec(seconds, micros * 1000)
        setting = _Itimerspec(_Timespec(), value)
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(setting), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        """Let go of the timer."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        with suppress(BlockingIOError):  # it was set anew between the ring and this
            os.read(self._fd, 8)
            self._ring()
