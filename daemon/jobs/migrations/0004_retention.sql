-- The logs of removed jobs that may still be on the disk: written with the removal, deleted after the files.
CREATE TABLE removed_logs (
    job_id   TEXT    PRIMARY KEY,
    attempts INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The newest event that was removed with its job; one row.
CREATE TABLE removed_events (
    last_id INTEGER NOT NULL
) STRICT;

INSERT INTO removed_events (last_id) VALUES (0);
