"""A child that speaks the handover protocol and does what its arguments say; run as a script.

It knows nothing of the product, so that the supervisor is tested against the protocol alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path


def main(words: list[str]) -> int:
    """Obey the words in order: each is ``verb`` or ``verb=argument``."""
    with os.fdopen(int(os.environ["RUNNER_HANDOVER_FD"]), "rb") as pipe:
        payload = json.load(pipe)
    ready_fd = int(os.environ["RUNNER_READY_FD"])
    facts: dict[str, object] = {"digest": digest(payload)}
    for word in words:
        verb, _, argument = word.partition("=")
        if verb == "print":
            print(argument, flush=True)
        elif verb == "leak":
            os.write(1, payload["secrets"][argument].encode() + b"\n")
        elif verb == "ignore-term":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif verb == "second-term":
            drain_then_cancel(Path(argument))
        elif verb == "fork":
            # A grandchild in a session of its own whose parent is gone: nothing ties it to us.
            script = f"(trap '' TERM HUP; exec sleep {argument}) & echo"
            subprocess.run(["setsid", "sh", "-c", script], check=True, stdout=subprocess.DEVNULL)
        elif verb == "slow":
            time.sleep(float(argument))
        elif verb == "error":
            os.write(ready_fd, json.dumps({"error": argument}).encode() + b"\n")
            return 3
        elif verb == "exit":
            return int(argument)
        elif verb == "mute":
            facts = {}
        elif verb == "fail-if":
            if Path(argument).exists():
                print("the flag is up", flush=True)
                return 9
        elif verb == "listen":
            facts["listen"] = argument
    if facts:
        os.write(ready_fd, json.dumps({"ready": facts}).encode() + b"\n")
        os.close(ready_fd)
    # Ends when the daemon does, as every child has to.
    select.select([int(os.environ["RUNNER_LIFE_FD"])], [], [])
    return 0


def digest(payload: object) -> str:
    """Return what two starts with the same secrets have in common, and what tells nothing else."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()


def drain_then_cancel(path: Path) -> None:
    """Write each TERM down; leave at the second one."""
    seen = []

    def note(number: int, _frame: object) -> None:
        seen.append(number)
        path.write_text(str(len(seen)))
        if len(seen) > 1:
            sys.exit(0)

    signal.signal(signal.SIGTERM, note)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(main(arguments[: arguments.index("--instance")]))
