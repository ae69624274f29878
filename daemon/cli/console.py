"""Entry point of the console script: what is typed while the command loads ends it like every other program."""

from __future__ import annotations

import signal


def main() -> None:
    """Load the command, then run it. A Ctrl-C before there is anybody to explain it has no trace of Python."""
    explained = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if explained:  # not ignored, as in the background of a script
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from daemon.cli.app import main as run  # noqa: PLC0415 - what takes long

    if explained:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()
