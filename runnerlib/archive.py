"""Makes one file of this package that any Python runs: ``python3 -m runnerlib zipapp FILE``."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipapp


def build(target: str) -> None:
    """Write the archive; it runs as a program.

    Raises:
        OSError: The file cannot be written.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as folder:
        package = os.path.join(folder, "runnerlib")
        os.mkdir(package)
        for name in sorted(os.listdir(here)):
            if name.endswith(".py"):
                shutil.copyfile(os.path.join(here, name), os.path.join(package, name))
        with open(os.path.join(folder, "workflow.py"), "w", encoding="utf-8") as shim:
            shim.write("from runnerlib.workflow import *\n")
        zipapp.create_archive(
            folder, target, interpreter="/usr/bin/env python3", main="runnerlib.__main__:program"
        )
