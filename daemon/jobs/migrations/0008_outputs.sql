-- The files that an attempt left; their contents lie in the folder of artifacts, by digest.
CREATE TABLE artifacts (
    job_id  TEXT    NOT NULL,
    attempt INTEGER NOT NULL,
    name    TEXT    NOT NULL,
    sha256  TEXT    NOT NULL,
    size    INTEGER NOT NULL,
    mode    INTEGER NOT NULL,
    PRIMARY KEY (job_id, attempt, name)
) STRICT, WITHOUT ROWID;

-- What is not referenced any more is found by its digest.
CREATE INDEX artifacts_by_content ON artifacts (sha256);

-- Which outputs are not kept though they were asked for, and why.
ALTER TABLE attempts ADD COLUMN outputs_error TEXT NOT NULL DEFAULT '';
