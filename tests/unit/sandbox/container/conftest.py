"""What the tests of the scripts for shells share."""

from __future__ import annotations

import subprocess

import pytest

from tests.unit.sandbox.container.test_resident_script import NAMESPACE, SHELLS


@pytest.fixture(params=SHELLS)
def shell(request) -> list[str]:
    """The words that start a shell, where it has nobody beside it."""
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no process namespaces here")
    return [*NAMESPACE, *request.param]
