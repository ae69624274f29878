"""Wheels of everything that the product needs, out of what is installed here: a test that builds an image reaches no index."""

from __future__ import annotations

import re
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

NOT_OF_THE_WHEEL = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"}


def fill(folder: Path) -> None:
    """Put a wheel of each dependency of the product into a folder, and of what installs them."""
    left, seen = ["runner", "pip"], {"runner", "pip"}
    while left:
        found = distribution(left.pop())
        if found.metadata["Name"] != "runner":
            repack(found, folder)
        for text in found.requires or ():
            requirement = Requirement(text)
            name = re.sub(r"[-_.]+", "-", requirement.name).lower()
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and name not in seen:
                seen.add(name)
                left.append(name)


def repack(found: Distribution, folder: Path) -> None:
    """Make a wheel of an installed distribution; its scripts are made anew where it is installed."""
    tag = re.search(r"^Tag: (\S+)$", found.read_text("WHEEL") or "", re.MULTILINE)
    assert tag is not None, found.metadata["Name"]
    name = re.sub(r"[-_.]+", "_", found.metadata["Name"])
    paths = [
        path
        for path in found.files or ()
        if ".." not in path.parts
        and "__pycache__" not in path.parts
        and not (path.parent.suffix == ".dist-info" and path.name in NOT_OF_THE_WHEEL)
    ]
    (info,) = {path.parts[0] for path in paths if path.parts[0].endswith(".dist-info")}
    with zipfile.ZipFile(folder / f"{name}-{found.version}-{tag[1]}.whl", "w") as wheel:
        for path in paths:
            wheel.write(str(path.locate()), str(path))
        wheel.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in paths))
