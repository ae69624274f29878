"""Which files the patterns of ``outputs`` mean."""

from __future__ import annotations

import time

import pytest

from agent_runner.output_patterns import Patterns, parse

MEANT = [
    (["*.txt"], "a.txt"),
    (["**/*.txt"], "a.txt"),
    (["**/*.txt"], "d/e/a.txt"),
    (["dist"], "dist"),
    (["dist"], "dist/a/.hidden"),
    (["dist/"], "dist/x"),
    (["dist/*"], "dist/a/b"),
    (["dist/**"], "dist/x/y"),
    (["**"], "a"),
    (["**"], "a/b/c"),
    (["./a//b"], "a/b"),
    (["a/**/b"], "a/b"),
    (["a/**/b"], "a/x/y/b"),
    (["a/**/**/b/*.c"], "a/b/q/b/z.c"),
    (["a?c"], "abc"),
    (["[ab]c"], "bc"),
    (["[!a]c"], "bc"),
    ([".*"], ".a"),
    (["**/.cache/f"], "a/.cache/f"),
    (["**", "!**/*.log", "a/keep.log"], "a/keep.log"),
    (["a\nb*"], "a\nb c"),
    (["ä*"], "ä\udcff"),
]
NOT_MEANT = [
    (["*.txt"], "d/a.txt"),
    (["**/*.txt"], ".d/a.txt"),
    (["**/*.txt"], "d/.a.txt"),
    (["dist/"], "dist"),
    (["dist/**"], "dist"),
    (["dist/**"], "dist/x/.y"),
    (["**"], ".git/config"),
    (["**", "!**/*.log"], "a/b.log"),
    (["dist", "!dist/sub/"], "dist/sub/x"),
    (["a?c"], "ac"),
    (["A"], "a"),
]


@pytest.mark.parametrize(("patterns", "name"), MEANT)
def test_meant(patterns, name):
    """And every folder on the way is looked into."""
    chosen = Patterns.of(patterns)

    assert chosen.take(name)
    folders = name.split("/")[:-1]
    assert all(chosen.enter("/".join(folders[:size])) for size in range(1, len(folders) + 1))


@pytest.mark.parametrize(("patterns", "name"), NOT_MEANT)
def test_not_meant(patterns, name):
    assert not Patterns.of(patterns).take(name)


@pytest.mark.parametrize(
    ("patterns", "folder"),
    [(["dist/**"], "src"), (["**"], ".git"), (["a/*/c"], "b"), (["dist/**/x"], "dist/.cache")],
)
def test_folders_that_hold_nothing_meant(patterns, folder):
    """They are not looked into: a checkout has a large ``.git``."""
    assert not Patterns.of(patterns).enter(folder)


def test_patterns_that_meet_nothing_are_known():
    """Those that take out are not asked, and one that only repeats another has met its file too."""
    chosen = Patterns.of(["a", "b/*", "!c", "**"])
    chosen.take("a")

    assert chosen.unmet() == ["b/*"]


def test_roots():
    """The fewest paths that hold everything."""
    assert Patterns.of(["dist/a/*", "dist/**", "x", "!y", "x/z"]).roots() == ["dist", "x"]
    assert Patterns.of(["dist/*", "*.txt"]).roots() == [""]


@pytest.mark.parametrize(
    "text", ["", "!", ".", "/", "/job/src/x", "../x", "a/../b", "a\0", "x" * 1001, "!/x"]
)
def test_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("*a" * 400 + "b", "a" * 255), ("**/a/" * 190 + "b", "a/" * 300 + "c")],
)
def test_no_pattern_takes_long(pattern, name):
    """A job's author writes them, and an agent-runner that serves others matches them."""
    began = time.process_time()

    assert not Patterns.of([pattern]).take(name)
    assert time.process_time() - began < 2
