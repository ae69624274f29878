"""The published JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

from daemon.jobfile.dialect import NOT_YET, spellings
from daemon.jobfile.schema import DESCRIPTIONS, job_schema

PUBLISHED = Path(__file__).parents[4] / "docs" / "job.schema.json"


def test_the_published_copy_is_this_one():
    """`runner schema job > docs/job.schema.json` makes it."""
    assert json.loads(PUBLISHED.read_text()) == job_schema()


def test_every_spelling_is_in_it():
    """What is read has a place in the schema, with a description."""
    fields = job_schema()["properties"]
    assert set(fields) == set(spellings()) - {
        name for name in spellings() if name == "image" and "container_image" in NOT_YET
    }
    assert all(field["description"] for field in fields.values())
    assert job_schema()["additionalProperties"] is False
    assert set(DESCRIPTIONS) <= set(fields)
