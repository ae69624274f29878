"""Where the peers are: what ``install.sh`` has put into one folder, and what the system has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmarks.goals import UnavailableError

PROJECT = Path(__file__).absolute().parent.parent.parent
FOLDER = Path(os.environ.get("BENCH_PEERS", PROJECT / "build" / "peers")).absolute()
"""The second argument of ``install.sh``."""
_NODE = FOLDER / "node_modules" / ".bin"
_VENV = FOLDER / "venv" / "bin"
_SYSTEM = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/usr/local/sbin")
PATH = os.pathsep.join([str(_VENV), str(_NODE), *_SYSTEM])


def python(package: str) -> str:
    """Return the interpreter that can import a package.

    Raises:
        UnavailableError: It is not installed.
    """
    found = list(_VENV.parent.glob(f"lib/python3*/site-packages/{package}"))
    if not found:
        raise UnavailableError(f"not available: {package} is not installed; run make bench-peers")
    return str(_VENV / "python")


def program(name: str) -> str:
    """Return the path of a program.

    Raises:
        UnavailableError: It is not installed.
    """
    postgres = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([PATH, *postgres]))
    if found is None:
        raise UnavailableError(f"not available: {name} is not installed")
    return str(Path(found).resolve()) if name in ("postgres", "initdb") else found
