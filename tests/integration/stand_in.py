"""A child that speaks the handover protocol and does what its arguments say; run as a script.

It knows nothing of the product, so that the supervisor is tested against the protocol alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


class StandIn:
    """Obeys words in order: each is the name of a method, or ``name=argument``."""

    def __init__(self) -> None:
        # The descriptor that comes along is the lock, which is only to be held.
        with socket.socket(fileno=int(os.environ["RUNNER_HANDOVER_FD"])) as handover:
            first, self.lock, _, _ = socket.recv_fds(handover, 1 << 16, 1)
            with handover.makefile("rb") as rest:
                self.payload = json.loads(first + rest.read())
        self.ready_fd = int(os.environ["RUNNER_READY_FD"])
        self.facts: dict[str, object] = {"digest": digest(self.payload)}

    def say(self, text: str) -> None:
        print(text, flush=True)

    def leak(self, name: str) -> None:
        """Print a secret, in two writes."""
        value = self.payload["secrets"][name].encode()
        os.write(1, value[:7])
        time.sleep(0.05)
        os.write(1, value[7:] + b"\n")

    def ignore(self, _: str) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def count(self, path: str) -> None:
        """Write down how many TERMs came; leave at the second one."""
        seen: list[int] = []

        def note(number: int, _frame: object) -> None:
            seen.append(number)
            Path(path).write_text(str(len(seen)))
            if len(seen) > 1:
                os._exit(0)

        signal.signal(signal.SIGTERM, note)

    def fork(self, path: str) -> None:
        """Leave a grandchild in a session of its own that ignores TERM, and write its pid down."""
        script = f"trap '' TERM HUP; sleep 600 & echo $! >{path}"
        subprocess.run(["setsid", "sh", "-c", script], check=True, stdout=subprocess.DEVNULL)

    def slow(self, seconds: str) -> None:
        time.sleep(float(seconds))

    def error(self, text: str) -> None:
        os.write(self.ready_fd, json.dumps({"error": text}).encode() + b"\n")
        sys.exit(3)

    def garble(self, _: str) -> None:
        os.write(self.ready_fd, b"[1, 2\n")

    def exit(self, code: str) -> None:
        sys.exit(int(code))

    def fail_if(self, path: str) -> None:
        if Path(path).exists():
            self.say("the flag is up")
            sys.exit(9)

    def mute(self, _: str) -> None:
        self.facts = {}

    def listen(self, address: str) -> None:
        self.facts["listen"] = address

    def live(self) -> None:
        """Be ready, then end when the daemon does, as every child has to."""
        # A signal between the last check and the system call wakes nobody but this descriptor.
        woken, waking = os.pipe()
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking)
        if self.facts:
            os.write(self.ready_fd, json.dumps({"ready": self.facts}).encode() + b"\n")
            os.close(self.ready_fd)
        life_fd = int(os.environ["RUNNER_LIFE_FD"])
        while life_fd not in select.select([life_fd, woken], [], [])[0]:
            os.read(woken, 64)


def digest(payload: object) -> str:
    """Return what two starts with the same secrets have in common, and what tells nothing else."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    stand_in = StandIn()
    for word in sys.argv[1 : sys.argv.index("--instance")]:
        verb, _, argument = word.partition("=")
        getattr(stand_in, verb)(argument)
    stand_in.live()
