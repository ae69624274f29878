-- Retries, delays, concurrency groups, dependencies, retention. An ordinary job pays for none of the indexes here: each
-- holds only the rows that need it.

ALTER TABLE jobs ADD COLUMN failures   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN hold       INTEGER NOT NULL DEFAULT 0;  -- as in rows.py; 0: may be claimed once PENDING
ALTER TABLE jobs ADD COLUMN ready_us   INTEGER;                     -- set exactly while hold is 1 or 2
ALTER TABLE jobs ADD COLUMN backoff_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN retry_of   TEXT    NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN group_name TEXT;                        -- the spec's concurrency group
ALTER TABLE jobs ADD COLUMN lane       TEXT;                        -- the spec's limit and labels, within its group

-- The ids of the job's events, as the inside of a JSON array, so that they are found without an index of events by job.
ALTER TABLE jobs ADD COLUMN event_ids  TEXT    NOT NULL DEFAULT '';

CREATE INDEX events_of_jobs ON events (job_id, id);
UPDATE jobs SET event_ids = coalesce(
    (SELECT group_concat(id) FROM events WHERE events.job_id = jobs.id), ''
);
DROP INDEX events_of_jobs;

DROP INDEX jobs_pending;
-- Labels lead, so that a claim jumps over every set of labels that its agent-runner does not have.
CREATE INDEX jobs_pending ON jobs (labels, priority DESC, seq) WHERE state = 'PENDING' AND hold = 0;

CREATE INDEX jobs_timed ON jobs (hold, ready_us) WHERE ready_us IS NOT NULL;

-- Of each group: what waits in line, what of that may be claimed now, and what runs.
CREATE INDEX jobs_in_lane ON jobs (group_name, lane, priority DESC, seq)
    WHERE group_name IS NOT NULL AND state = 'PENDING' AND ready_us IS NULL;
CREATE INDEX jobs_open ON jobs (group_name, lane)
    WHERE group_name IS NOT NULL AND state = 'PENDING' AND hold = 0;
CREATE INDEX jobs_holding ON jobs (group_name, seq)
    WHERE group_name IS NOT NULL AND state IN ('RUNNING', 'CANCELLING');

CREATE INDEX jobs_by_labels ON jobs (labels, state, seq) WHERE labels <> '{}';
CREATE INDEX jobs_by_retry ON jobs (retry_of, seq) WHERE retry_of <> '';

-- What each job that has not ended depends on; met: that has succeeded.
CREATE TABLE dependencies (
    depends_on TEXT    NOT NULL,
    job_id     TEXT    NOT NULL,
    met        INTEGER NOT NULL,
    PRIMARY KEY (depends_on, job_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX dependencies_of_job ON dependencies (job_id, met);
