-- Times are microseconds since the epoch. Enumerations are stored by name.
--
-- A commit writes every page that it touches, and a job has three commits, so each index costs. What is not here:
-- foreign keys (rows are only written by one module), AUTOINCREMENT (one more table for each new row; the newest event is
-- never deleted), an index of events by job (a watcher reads on from where it is, and filters).

CREATE TABLE jobs (
    seq            INTEGER PRIMARY KEY,  -- order of submits; kept when a job is put back
    id             TEXT    NOT NULL UNIQUE,
    request_id     TEXT,
    payload_sha256 TEXT    NOT NULL,
    spec           TEXT    NOT NULL,                   -- JSON
    labels         TEXT    NOT NULL,                   -- the spec's labels as canonical JSON
    priority       INTEGER NOT NULL,
    state          TEXT    NOT NULL,
    create_us      INTEGER NOT NULL,
    attempt        INTEGER NOT NULL,
    losses         INTEGER NOT NULL,
    end_reason     TEXT,
    exit_code      INTEGER,
    message        TEXT    NOT NULL,
    start_us       INTEGER,
    end_us         INTEGER,
    sandbox_kind   TEXT    NOT NULL,
    sandbox_tier   TEXT    NOT NULL,
    walls_not_held TEXT    NOT NULL                    -- JSON
) STRICT;

CREATE UNIQUE INDEX jobs_by_request ON jobs (request_id) WHERE request_id IS NOT NULL;

CREATE INDEX jobs_by_state ON jobs (state, seq);

-- Labels lead, so that a claim jumps over every set of labels that its agent-runner does not have.
CREATE INDEX jobs_pending ON jobs (labels, priority DESC, seq) WHERE state = 'PENDING';

CREATE TABLE attempts (
    job_id            TEXT    NOT NULL,
    number            INTEGER NOT NULL,
    state             TEXT    NOT NULL,
    agent_name        TEXT    NOT NULL,
    agent_incarnation TEXT    NOT NULL,
    lease_token       TEXT    NOT NULL,
    start_us          INTEGER NOT NULL,
    expire_us         INTEGER NOT NULL,                -- of the lease, on the steady clock
    end_us            INTEGER,
    end_reason        TEXT,
    exit_code         INTEGER,
    message           TEXT    NOT NULL,
    sandbox_kind      TEXT    NOT NULL,
    sandbox_tier      TEXT    NOT NULL,
    walls_not_held    TEXT    NOT NULL,                -- JSON
    log_length        INTEGER NOT NULL,
    log_sha256        TEXT    NOT NULL,
    log_truncated     TEXT    NOT NULL,
    PRIMARY KEY (job_id, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX attempts_leased ON attempts (expire_us) WHERE state = 'RUNNING';

CREATE TABLE events (
    id         INTEGER PRIMARY KEY,
    job_id     TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    attempt    INTEGER NOT NULL,
    time_us    INTEGER NOT NULL,
    end_reason TEXT,
    exit_code  INTEGER
) STRICT;
