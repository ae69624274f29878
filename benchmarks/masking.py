"""P14 and the masker: how fast secrets are found, beside a pipe without and a loop of ``bytes.replace``."""

from __future__ import annotations

import base64
import os
import random
import string
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.client_process import ClientProcess
from benchmarks.goals import Goal, Group, Plan, Reading
from benchmarks.installation import Installation
from benchmarks.log_path import MB, print_command, take_log_bytes
from benchmarks.throughput import PLAIN
from sandbox.masking.forms import derived_forms, given_forms
from sandbox.masking.masker import MASK, Masker

READ_BYTES = 64 << 10
NAIVE_SHARE = 8
"""The loop over all forms gets so much less to do."""
FEW, MANY = 20, 200


def write_log(path: Path, size_mb: int) -> None:
    """Write what builds and tests print, the same for each run, readable for everybody."""
    source = random.Random(7)
    number = source.randrange
    lines = [
        f"Collecting package-{number(999)}>=1.{number(99)} (from -r requirements.txt (line 7))",
        f"  Downloading https://files.example.org/packages/{number(1 << 60):x}/pkg-3.1-any.whl",
        f"tests/unit/test_module_{number(99)}.py::test_case_{number(999)} PASSED [ 41%]",
        f'{{"level":"info","msg":"request done","status":200,"path":"/api/v1/items/{number(9999)}"}}',
        f"\x1b[32m  ok\x1b[0m compiled {number(999)} modules in {number(99)}ms",
        f"gcc -O2 -Wall -Iinclude -c src/file_{number(999)}.c -o build/file_{number(999)}.o",
        base64.b64encode(source.randbytes(54)).decode(),
        f"Step {number(20)}/20 : RUN apt-get install -y lib{number(99)}-dev && rm -rf /var/lib/apt",
        f"[{'=' * number(40)}>] {number(100)}%",
    ]
    block = "".join(f"{source.choice(lines)}\n" for _ in range(20_000)).encode()[:MB]
    with path.open("wb") as file:
        for _ in range(size_mb):
            file.write(block)
    path.chmod(0o644)


def mixed_secrets(count: int) -> dict[str, str]:
    """Return tokens, addresses with passwords, JSON documents and keys, by name."""
    source = random.Random(11)

    def token(size: int) -> str:
        return "".join(source.choices(string.ascii_letters + string.digits + "_-", k=size))

    def key() -> str:
        lines = [base64.b64encode(source.randbytes(48)).decode() for _ in range(25)]
        return "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""])

    kinds: tuple[Callable[[int], str], ...] = (
        *(lambda _: token(32),) * 6,
        lambda n: f"postgres://svc{n}:{token(24)}@db{n}.internal:5432/app",
        lambda _: f"{token(8)}!\"'$ {token(8)}",
        lambda n: f'{{"type": "x", "private_key_id": "{token(40)}", "name": "account-{n}"}}',
        lambda _: key(),
    )
    return {f"BENCH_{n}": kinds[n % len(kinds)](n) for n in range(count)}


class MaskerSpeed(Group):
    """The masker alone, on one core, between a pipe and nothing."""

    goals = (
        Goal("P40", f"masker, {FEW} secrets in all forms", 100, 150, at_most=False, unit="MB/s"),
        Goal("P40", "the same vs a `bytes.replace` loop over the same forms", 3, 8, at_most=False),
    )

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._size = plan.amount(96, 32)
        self._log = plan.root / "mask-log"
        self._masker = Masker()
        self._forms: list[bytes] = []

    def prepare(self, stack: ExitStack) -> None:
        """Write the log and register the secrets."""
        write_log(self._log, self._size)
        stack.callback(self._log.unlink)
        forms: set[bytes] = set()
        for name, value in mixed_secrets(FEW).items():
            self._masker.add(name, value)
            forms |= given_forms(value.encode()) | derived_forms(value.encode())
        self._masker.snapshot()
        self._forms = sorted(forms, key=len, reverse=True)

    def round(self) -> list[Reading]:
        """The pipe alone, the masker behind it, the loop behind it."""
        plain = self._speed(lambda chunk: chunk, 1)
        masked = self._speed(self._masker.stream().feed, 1)
        naive = self._speed(self._replaced, NAIVE_SHARE)
        detail = (
            f"pipe alone {plain:.0f} MB/s, {len(self._forms)} forms, {READ_BYTES >> 10} KiB reads"
        )
        return [Reading(masked, detail), Reading(masked / naive, f"loop {naive:.1f} MB/s")]

    def _replaced(self, chunk: bytes) -> bytes:
        for form in self._forms:
            chunk = chunk.replace(form, MASK)
        return chunk

    def _speed(self, feed: Callable[[bytes], bytes], share: int) -> float:
        """Return megabytes per second of this process' CPU time, the reading included."""
        size = self._size // share
        command = ["head", "-c", str(size * MB), str(self._log)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            fd = child.stdout.fileno()
            start = time.process_time()
            while chunk := os.read(fd, READ_BYTES):
                feed(chunk)
            return size / (time.process_time() - start)


class MaskedLogs(Group):
    """The whole path from a job to the server's file, with no, one, some and many secrets."""

    goals = (
        Goal("P41", f"log without masking vs with {FEW} secrets", 1.3, 1.15),
        Goal("P14", f"log MB/s with {MANY} secrets vs one", 0.8, 0.9, at_most=False),
    )

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._size = plan.amount(200, 60)
        self._log = plan.root / "p14-log"

    def prepare(self, stack: ExitStack) -> None:
        """Write the log and start an installation that knows the secrets."""
        write_log(self._log, self._size)
        stack.callback(self._log.unlink)
        self._values = mixed_secrets(MANY)
        self._client = stack.enter_context(ClientProcess())
        self._installation = stack.enter_context(
            Installation(self.plan, *PLAIN, secrets=self._values)
        )

    def round(self) -> list[Reading]:
        """Each in turn."""
        bare, one, some, many = (
            self._speed(count, masking)
            for count, masking in ((0, "off"), (1, ""), (FEW, ""), (MANY, ""))
        )
        return [
            Reading(bare / some, f"{bare:.0f} MB/s without, {some:.0f} MB/s with"),
            Reading(many / one, f"{many:.0f} MB/s of {one:.0f} MB/s"),
        ]

    def _speed(self, count: int, masking: str) -> float:
        names = list(self._values)[:count]
        done = self._client.ask(
            "output",
            target=self._installation.target,
            argv=["/bin/sh", "-c", print_command(self._log, 1)],
            env={name: f"${{secret:local:{name}}}" for name in names},
            follow=False,
            masking=masking,
        )
        size = take_log_bytes(self._installation, done["job_id"])
        if size != self._size * MB:
            raise RuntimeError(f"{size} bytes arrived, not {self._size * MB}")
        return self._size / float(done["seconds"])
