-- A database as runner wrote it with schema 2: a job in every state, made by its own calls.
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
    log_truncated     TEXT    NOT NULL, renew_us INTEGER,
    PRIMARY KEY (job_id, number)
) STRICT, WITHOUT ROWID;
INSERT INTO "attempts" VALUES('cancelling',1,'RUNNING','agent','1','yvIO6cv_ieFrGQxbssQZHA',1700000011000000,1700000041000000,NULL,NULL,NULL,'','','','[]',0,'','',NULL);
INSERT INTO "attempts" VALUES('failed',1,'FAILED','agent','1','MUMi_D7cKhEVkpnVfCsHxA',1700000003000000,1700000033000000,1700000004000000,'EXITED',1,'','','','[]',3,'abc','',NULL);
INSERT INTO "attempts" VALUES('lost',1,'FAILED','agent','2','wkBRkKDoVmKLHwbljLU14g',1700000006000000,1700000036000000,1700000007000000,'LOST',NULL,'the agent-runner that ran it died or was out of reach for longer than the lease','','','[]',0,'','agent_died',NULL);
INSERT INTO "attempts" VALUES('lost',2,'CANCELLED','agent','1','eXtuJrfy3KaFMJdRz4sX_g',1700000007000000,1700000037000000,1700000008000000,'CANCELLED',NULL,'the assignment did not reach the agent-runner','','','[]',0,'','',NULL);
INSERT INTO "attempts" VALUES('running',1,'RUNNING','agent','1','lEbXz5hInqJP5YtOwCnbWA',1700000009000000,1700000039000000,NULL,NULL,NULL,'','','','[]',0,'','',NULL);
INSERT INTO "attempts" VALUES('succeeded',1,'SUCCEEDED','agent','1','L9AEVrNf0CRWuxYXuYO-3Q',1700000001000000,1700000031000000,1700000002000000,'EXITED',0,'','','','[]',3,'abc','',NULL);
CREATE TABLE events (
    id         INTEGER PRIMARY KEY,
    job_id     TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    attempt    INTEGER NOT NULL,
    time_us    INTEGER NOT NULL,
    end_reason TEXT,
    exit_code  INTEGER
) STRICT;
INSERT INTO "events" VALUES(1,'succeeded','PENDING',0,1700000000000000,NULL,NULL);
INSERT INTO "events" VALUES(2,'succeeded','RUNNING',1,1700000001000000,NULL,NULL);
INSERT INTO "events" VALUES(3,'succeeded','SUCCEEDED',1,1700000002000000,'EXITED',0);
INSERT INTO "events" VALUES(4,'failed','PENDING',0,1700000002000000,NULL,NULL);
INSERT INTO "events" VALUES(5,'failed','RUNNING',1,1700000003000000,NULL,NULL);
INSERT INTO "events" VALUES(6,'failed','FAILED',1,1700000004000000,'EXITED',1);
INSERT INTO "events" VALUES(7,'cancelled','PENDING',0,1700000004000000,NULL,NULL);
INSERT INTO "events" VALUES(8,'cancelled','CANCELLED',0,1700000005000000,'CANCELLED',NULL);
INSERT INTO "events" VALUES(9,'lost','PENDING',0,1700000005000000,NULL,NULL);
INSERT INTO "events" VALUES(10,'lost','RUNNING',1,1700000006000000,NULL,NULL);
INSERT INTO "events" VALUES(11,'lost','PENDING',1,1700000007000000,NULL,NULL);
INSERT INTO "events" VALUES(12,'lost','RUNNING',2,1700000007000000,NULL,NULL);
INSERT INTO "events" VALUES(13,'lost','PENDING',2,1700000008000000,NULL,NULL);
INSERT INTO "events" VALUES(14,'running','PENDING',0,1700000008000000,NULL,NULL);
INSERT INTO "events" VALUES(15,'running','RUNNING',1,1700000009000000,NULL,NULL);
INSERT INTO "events" VALUES(16,'cancelling','PENDING',0,1700000010000000,NULL,NULL);
INSERT INTO "events" VALUES(17,'cancelling','RUNNING',1,1700000011000000,NULL,NULL);
INSERT INTO "events" VALUES(18,'cancelling','CANCELLING',1,1700000012000000,NULL,NULL);
INSERT INTO "events" VALUES(19,'pending','PENDING',0,1700000012000000,NULL,NULL);
INSERT INTO "events" VALUES(20,'urgent','PENDING',0,1700000013000000,NULL,NULL);
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
INSERT INTO "jobs" VALUES(1,'succeeded','request succeeded','payload','{"argv":["true"],"name":"job","env":{},"source":{"kind":"none","path":""},"code_dir":"/job/src","job_dir":"","timeout_s":3600.0,"idle_timeout_s":null,"sandbox":{"kind":"auto","min":"landlock","network":"on","memory_bytes":0,"pids":0,"output_bytes":0},"labels":{"os":"linux"},"priority":0}','{"os":"linux"}',0,'SUCCEEDED',1700000000000000,1,0,'EXITED',0,'',1700000001000000,1700000002000000,'','','[]');
INSERT INTO "jobs" VALUES(2,'failed','request failed','payload','{"argv":["true"],"name":"job","env":{},"source":{"kind":"none","path":""},"code_dir":"/job/src","job_dir":"","timeout_s":3600.0,"idle_timeout_s":null,"sandbox":{"kind":"auto","min":"landlock","network":"on","memory_bytes":0,"pids":0,"output_bytes":0},"labels":{},"priority":0}','{}',0,'FAILED',1700000002000000,1,0,'EXITED',1,'',1700000003000000,1700000004000000,'','','[]');
INSERT INTO "jobs" VALUES(3,'cancelled','request cancelled','payload','{"argv":["true"],"name":"job","env":{},"source":{"kind":"none","path":""},"code_dir":"/job/src","job_dir":"","timeout_s":3600.0,"idle_timeout_s":null,"sandbox":{"kind":"auto","min":"landlock","network":"on","memory_bytes":0,"pids":0,"output_bytes":0},"labels":{},"priority":0}','{}',0,'CANCELLED',1700000004000000,0,0,'CANCELLED',NULL,'',NULL,1700000005000000,'','','[]');
INSERT INTO "jobs" VALUES(4,'lost','request lost','payload','{"argv":["true"],"name":"job","env":{},"source":{"kind":"none","path":""},"code_dir":"/job/src","job_dir":"","timeout_s":3600.0,"idle_timeout_s":null,"sandbox":{"kind":"auto","min":"landlock","network":"on","memory_bytes":0,"pids":0,"output_bytes":0},"labels":{},"priority":0}','{}',0,'PENDING',1700000005000000,2,1,NULL,NULL,'',1700000007000000,NULL,'','','[]');
INSERT INTO "jobs" VALUES(5,'running','request running','payload','{"argv":["true"],"name":"job","env":{},"source":{"kind":"none","path":""},"code_dir":"/job/src","job_dir":"","timeout_s":3600.0,"idle_timeout_s":null,"sandbox":{"kind":"auto","min":"landlock","network":"on","memory_bytes":0,"pids":0,"output_bytes":0},"labels":{},"priority":9}','{}',9,'RUNNING',1700000008000000,1,0,NULL,NULL,'',1700000009000000,NULL,'','','[]');
INSERT INTO "jobs" VALUES(6,'cancelling','request cancelling','payload','{"argv":["true"],"name":"job","env":{},"source":{"kind":"none","path":""},"code_dir":"/job/src","job_dir":"","timeout_s":3600.0,"idle_timeout_s":null,"sandbox":{"kind":"auto","min":"landlock","network":"on","memory_bytes":0,"pids":0,"output_bytes":0},"labels":{},"priority":9}','{}',9,'CANCELLING',1700000010000000,1,0,NULL,NULL,'',1700000011000000,NULL,'','','[]');
INSERT INTO "jobs" VALUES(7,'pending','request pending','payload','{"argv":["true"],"name":"job","env":{},"source":{"kind":"none","path":""},"code_dir":"/job/src","job_dir":"","timeout_s":3600.0,"idle_timeout_s":null,"sandbox":{"kind":"auto","min":"landlock","network":"on","memory_bytes":0,"pids":0,"output_bytes":0},"labels":{},"priority":0}','{}',0,'PENDING',1700000012000000,0,0,NULL,NULL,'',NULL,NULL,'','','[]');
INSERT INTO "jobs" VALUES(8,'urgent','request urgent','payload','{"argv":["true"],"name":"job","env":{},"source":{"kind":"none","path":""},"code_dir":"/job/src","job_dir":"","timeout_s":3600.0,"idle_timeout_s":null,"sandbox":{"kind":"auto","min":"landlock","network":"on","memory_bytes":0,"pids":0,"output_bytes":0},"labels":{},"priority":5}','{}',5,'PENDING',1700000013000000,0,0,NULL,NULL,'',NULL,NULL,'','','[]');
CREATE UNIQUE INDEX jobs_by_request ON jobs (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX jobs_by_state ON jobs (state, seq);
CREATE INDEX jobs_pending ON jobs (labels, priority DESC, seq) WHERE state = 'PENDING';
CREATE INDEX attempts_leased ON attempts (expire_us) WHERE state = 'RUNNING';
PRAGMA application_id = 1381322322;
PRAGMA user_version = 2;
