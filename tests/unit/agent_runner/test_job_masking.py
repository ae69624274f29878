"""What an attempt hides, and what of it serves the next one."""

from __future__ import annotations

import logging

from agent_runner import job_masking
from agent_runner.job_masking import JobMasking
from agent_runner.job_spec import JobSpec
from agent_runner.kept_maskers import KeptMaskers
from sandbox.masking.masker import Masker

SECRETS = {"a:A": "s3cr3t value one", "a:B": "s3cr3t-value-two"}


def _masking(mode=""):
    return JobMasking(JobSpec(argv=("true",), masking=mode))


async def test_kept_values_are_spelled_once():
    """The second job with the same secrets finds them spelled, and hides its own beside them."""
    kept: list[Masker] = []
    for number in range(2):
        masking = _masking()
        own = {"s:K": f"of-the-store-{number}"}
        await masking.hide(SECRETS | own, SECRETS.values())
        text = (
            f"s3cr3t%20value%20one s3cr3t-value-two of-the-store-{number} of-the-store-{1 - number}"
        )
        assert masking.masker.mask_text(text) == f"*** *** *** of-the-store-{1 - number}"
        kept.append(job_masking._kept.of(frozenset(SECRETS.values())))
    assert kept[0] is kept[1]


async def test_what_is_not_kept_is_not_remembered():
    """A value of the store is gone with its job."""
    before = dict(job_masking._kept._maskers)
    await _masking().hide({"s:K": "of-the-store-alone"}, ())
    assert job_masking._kept._maskers == before


def test_the_sets_that_were_used_last_stay():
    """Many small sets or a few large ones; the last one whatever its size."""
    first, second, large = (frozenset({f"s3cr3t-value-{n}"}) for n in range(3))
    size = KeptMaskers().of(first).size
    kept = KeptMaskers(room=2 * size)
    maskers = [kept.of(first), kept.of(second)]
    assert [kept.of(first), kept.of(second)] == maskers
    kept.of(first)
    kept.of(large)
    assert kept.of(first) is maskers[0]
    assert kept.of(second) is not maskers[1]
    alone = KeptMaskers(room=0)
    assert alone.of(first) is alone.of(first)


async def test_a_trivial_secret_is_warned_of_by_name(caplog):
    """For every job anew, kept or not."""
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            await _masking().hide({"a:SHORT": "ab", **SECRETS}, ["ab", *SECRETS.values()])
    assert [record.secret for record in caplog.records] == ["a:SHORT"] * 2
    assert "ab" not in [record.getMessage() for record in caplog.records]


async def test_without_masking_the_log_shows_everything_but_messages_do_not():
    """``masking: off`` is about the log only."""
    masking = _masking("off")
    await masking.hide(SECRETS, SECRETS.values())
    stream = masking.log_stream()
    assert stream.feed(b"s3cr3t-value-two") + stream.close() == b"s3cr3t-value-two"
    assert masking.masker.mask_text("s3cr3t-value-two") == "***"
