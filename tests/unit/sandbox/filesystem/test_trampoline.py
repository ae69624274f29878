"""The first program of every command, and the lists of system calls that it goes through."""

from __future__ import annotations

import ast
import errno
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sandbox.filesystem
from sandbox.errors import SandboxUnavailableError
from sandbox.filesystem.call_list import MAGIC, CallList, Step, failed_step
from sandbox.filesystem.system_calls import MACHINES
from sandbox.filesystem.trampoline import CODE, Trampoline

SOURCES = Path(sandbox.filesystem.__file__).parent / "machine_code"
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.fixture
def trampoline():
    """One for this machine."""
    made = Trampoline()
    yield made
    made.close()
    made.close()


def run(
    trampoline: Trampoline, prepare: Callable[[CallList], None], kept: tuple[int, ...] = ()
) -> tuple[int, bytes]:
    """Go through a list; return the exit status and what was written."""
    calls = CallList(trampoline.machine)
    prepare(calls)
    read_fd, write_fd = os.pipe()
    pid = trampoline.spawn(calls.finish(), output_fd=write_fd, kept=kept)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        output = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output


@pytest.mark.parametrize("machine", sorted(CODE))
def test_the_code_is_what_its_source_says(machine, tmp_path):
    """Assembled again, it is the same to the last byte."""
    prefix = "" if platform.machine() == machine else f"{machine}-linux-gnu-"
    if shutil.which(f"{prefix}as") is None:
        pytest.skip(f"no assembler for {machine}")
    made = tmp_path / "made.o"
    code = tmp_path / "code"
    subprocess.run([f"{prefix}as", SOURCES / f"{machine}.s", "-o", made], check=True)
    copy = [f"{prefix}objcopy", "-O", "binary", "-j", ".text", made, code]
    subprocess.run(copy, check=True)
    assert code.read_bytes() == CODE[machine][1]


@pytest.mark.parametrize("machine", sorted(HEADERS))
def test_the_numbers_are_the_kernels(machine):
    """What the headers of this host know of them."""
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    text = header.read_text()
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", text))
    known = {name: int(found[name]) for name in MACHINES[machine].calls if name in found}
    assert {name: MACHINES[machine].calls[name] for name in known} == known
    assert len(known) > 60


def test_a_program_gets_its_words_and_variables_and_nothing_else(trampoline):
    """Bytes that are no text survive; the environment of this process does not."""
    odd = os.fsdecode(b"\xff\n")

    def prepare(calls: CallList) -> None:
        calls.empty_stdin()
        calls.close_all_but(())
        code = "import os,sys;print(ascii((sys.argv[1:],dict(os.environ),os.listdir('/proc/self/fd'))))"
        calls.execute(["/usr/bin/python3", "-IS", "-c", code, odd, ""], {"A": odd, "B": ""})

    status, output = run(trampoline, prepare)
    words, variables, descriptors = ast.literal_eval(output.decode())
    variables.pop("LC_CTYPE", None)  # Python's own
    assert (status, words, variables) == (0, [odd, ""], {"A": odd, "B": ""})
    assert descriptors == ["0", "1", "2", "3"]  # the last one is the folder that is read


def test_descriptors_are_kept_under_their_numbers(trampoline):
    """Whichever they are, and nothing between them."""
    made = [os.open(os.devnull, os.O_RDONLY) for _ in range(6)]
    for fd in made:
        os.set_inheritable(fd, True)
    kept = (made[4], made[1])
    try:

        def prepare(calls: CallList) -> None:
            calls.close_all_but(kept)
            calls.execute(["/bin/sh", "-c", "echo /proc/$$/fd/*"], {})

        _, output = run(trampoline, prepare, kept)
    finally:
        for fd in made:
            os.close(fd)
    found = {int(name.rpartition(b"/")[2]) for name in output.split()}
    assert found == {0, 1, 2, 3, *kept}  # 3 is the folder that the shell reads


def test_a_step_that_fails_is_told_and_nothing_comes_after_it(trampoline):
    """With what it was for, and the kernel's reason."""

    def prepare(calls: CallList) -> None:
        calls.may("chdir", 1)
        calls.change_directory("/dev/null")
        calls.execute(["/bin/echo", "reached"], {})

    status, output = run(trampoline, prepare)
    assert (status, failed_step(output)) == (127, (Step.DIRECTORY, errno.ENOTDIR))


def test_a_program_that_is_nowhere(trampoline):
    """On an empty path, on a long one, by its own path."""
    for argv in (["no-such-program"], ["/no/such/program"], ["no/such"]):

        def prepare(calls: CallList, argv: list[str] = argv) -> None:
            calls.execute(argv, {"PATH": "/usr/bin::/bin"})

        _, output = run(trampoline, prepare)
        assert failed_step(output) == (Step.PROGRAM, errno.ENOENT)


@pytest.mark.parametrize("said", [b"", MAGIC, b"x" * 32, MAGIC + b"\xff" * 24, MAGIC + b"x" * 25])
def test_what_is_no_report_is_taken_for_output(said):
    """A command may print anything."""
    assert failed_step(said) is None


def test_a_copied_list_shares_nothing(trampoline):
    """What is added to one command's list is not in the next one's."""
    shared = CallList(trampoline.machine)
    shared.change_directory("/")
    before = shared.copy().finish()
    shared.copy().execute(["/bin/true"], {"A": "b"})
    assert shared.finish() == before


def test_a_machine_without_code_is_refused(monkeypatch):
    """With its name."""
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "6", "1", "vax")))
    with pytest.raises(SandboxUnavailableError, match="machine"):
        Trampoline()


WITHOUT_MEMORY = """
import os, sys
from pathlib import Path
from sandbox.filesystem.call_list import CallList
from sandbox.filesystem.trampoline import Trampoline
trampoline = Trampoline(Path(sys.argv[1]))
calls = CallList(trampoline.machine)
calls.execute(["/bin/echo", "started"], {})
pid = trampoline.spawn(calls.finish(), output_fd=1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_kernel_without_programs_in_memory(monkeypatch, tmp_path):
    """The folder has the program instead, without a name; without a folder there is no tier."""

    def refuse(name: str, flags: int) -> int:
        if flags & 0x10:
            raise OSError(errno.EACCES, "forbidden")
        return memfd_create(name, flags)

    memfd_create = os.memfd_create
    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(SandboxUnavailableError, match="forbidden"):
        Trampoline()
    made = Trampoline(tmp_path)
    assert list(tmp_path.iterdir()) == []
    try:
        assert run(made, lambda calls: calls.execute(["/bin/echo", "x"], {})) == (0, b"x\n")
    finally:
        made.close()


def test_the_kernel_forbids_programs_in_memory(tmp_path):
    """In a PID namespace, which has the setting for itself."""
    setting = "/proc/sys/vm/memfd_noexec"
    if os.geteuid() != 0 or not os.path.exists(setting):
        pytest.skip("only root can forbid it, on Linux from 6.3")
    inside = f'echo 2 >{setting} && exec "$@"'
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "/bin/sh", "-c", inside, "sh"]
    argv = [*unshare, sys.executable, "-c", WITHOUT_MEMORY, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"started\n"), done.stderr
