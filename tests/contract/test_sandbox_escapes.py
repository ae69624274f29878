"""All cases of tests/cases/escape*.json, on both tiers with walls, by root and by an ordinary user."""

from __future__ import annotations

import functools
import itertools
import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.filesystem.landlock import kernel_abi, scoped
from tests.contract import escape_run
from tests.contract.deviations import BWRAP, CONTAINER, ESCAPE_DEVIATIONS, ESCAPE_RACES, LANDLOCK
from tests.contract.sandbox_backends import WARM, tier_of

ROOT = Path(__file__).parents[2]
ACCOUNTS = ("runner-test", "tester")
WHOLE_RUN_S = 560
ME = "me"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(WHOLE_RUN_S + 20)]


def other_account() -> pwd.struct_passwd:
    """Return an ordinary user, if this process may become one."""
    if os.geteuid() != 0:
        pytest.skip("only root can become a second user")
    for name in ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip(f"a second user is missing: useradd --create-home {ACCOUNTS[0]}")


@functools.cache
def outcome(tier: str, who: str) -> dict[str, list[str]] | str:
    """Run all cases once for a tier and a user; return what is wrong with each, or why they could not be run."""
    folder = Path("/var/tmp") / f"runner-escapes-{os.getpid()}-{tier}-{who}"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    argv, env = [sys.executable], dict(os.environ)
    try:
        for name in ("daemon", "sandbox", "tests/contract", "tests/cases"):
            shutil.copytree(ROOT / name, folder / "copy" / name, dirs_exist_ok=True)
        if who != ME:
            account = other_account()
            os.chown(folder, account.pw_uid, account.pw_gid)
            ids = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
            # Our own interpreter may be below a folder that the user cannot enter.
            argv = ["/usr/bin/setpriv", *ids, "--", "/usr/bin/python3"]
            env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
        done = subprocess.run(
            [*argv, "-m", escape_run.__name__, tier, str(folder / "root")],
            cwd=folder / "copy",
            env={**env, "PYTHONPATH": str(folder / "copy"), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            timeout=WHOLE_RUN_S,
            check=False,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if done.returncode != 0:
        return done.stderr.decode()[-2000:]
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


CASES = [
    pytest.param(how, who, case, id=f"{who}-{how}-{case['id']}")
    # Out of what was built ahead for one of the two users only: it takes the time of a whole run.
    for how, who in (*itertools.product((BWRAP, LANDLOCK), (ME, "another")), (WARM, "another"))
    for case in escape_run.load()
    if case["tiers"][tier_of(how)] != "n/a"
]


@pytest.mark.parametrize(("how", "who", "case"), CASES)
def test_withstands(how, who, case, request):
    """The case does no harm, or the tier says by name that it does not withstand it."""
    tier = tier_of(how)
    if case.get("arch", os.uname().machine) != os.uname().machine:
        pytest.skip("written for another machine")
    if case.get("danger") == "kill-all" and tier != BWRAP and not scoped(kernel_abi()):
        pytest.skip("without scopes it would end every process of the user")
    reason = ESCAPE_DEVIATIONS.get((tier, case["id"]))
    if reason is not None:
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    elif (race := ESCAPE_RACES.get((tier, case["id"]))) is not None:
        request.node.add_marker(pytest.mark.xfail(reason=race, strict=False))
    if who != ME:
        other_account()
    found = outcome(how, who)
    assert isinstance(found, dict), found
    assert found[case["id"]] == []


def test_every_deviation_names_a_case():
    """And none that the list of cases calls a duty of the tier, but for what the reasons say of other parts."""
    known = {case["id"]: case for case in escape_run.load()}
    duties = {
        (tier, name)
        for tier, name in ESCAPE_DEVIATIONS
        if known[name]["tiers"].get(tier) == "must"
        and tier != CONTAINER  # test_container_escapes.py
    }
    assert duties == {(LANDLOCK, "allow-01")}
