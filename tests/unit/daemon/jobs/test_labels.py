"""Sets of labels: one text for equal ones, and two ways to match that agree."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.jobs.labels import MAX_LABELS_OF_SUBSETS, label_key, matches, subset_keys

LABELS = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["1", "ä", '"']), max_size=8)


def test_order_does_not_matter():
    """Equal sets have one text."""
    assert label_key({"a": "1", "b": "2"}) == label_key({"b": "2", "a": "1"})
    assert label_key({}) == "{}"


@settings(deadline=None, database=None)
@given(LABELS, LABELS)
def test_matching(labels: dict[str, str], offered: dict[str, str]):
    """A set matches if each label is offered with its value; the subsets are all that match."""
    expected = all(offered.get(name) == value for name, value in labels.items())
    keys = subset_keys(offered)

    assert matches(label_key(labels), offered) is expected
    if keys is None:
        assert len(offered) > MAX_LABELS_OF_SUBSETS
    else:
        assert (label_key(labels) in keys) is expected
        assert len(keys) == len(set(keys)) == 2 ** len(offered)
