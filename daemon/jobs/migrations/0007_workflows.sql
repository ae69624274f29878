-- Jobs that were triggered by others, and what jobs of one workflow pass on. An ordinary job pays for no index here.

ALTER TABLE jobs ADD COLUMN parent_id       TEXT    NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN depth           INTEGER NOT NULL DEFAULT 0;   -- of the chain of parents
ALTER TABLE jobs ADD COLUMN workflow_id     TEXT    NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN workflow_output TEXT    NOT NULL DEFAULT '';  -- JSON, once it has ended

CREATE INDEX jobs_by_parent ON jobs (parent_id, seq) WHERE parent_id <> '';
CREATE INDEX jobs_by_workflow ON jobs (workflow_id, seq) WHERE workflow_id <> '';
