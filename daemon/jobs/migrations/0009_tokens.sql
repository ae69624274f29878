-- The bearer tokens that were issued, without their secrets: sha256 is of 256 random bits, so nobody gets back from it.
CREATE TABLE tokens (
    id          TEXT PRIMARY KEY,
    sha256      TEXT    NOT NULL UNIQUE,
    role        TEXT    NOT NULL,
    projects    TEXT    NOT NULL,                   -- JSON; empty for the role admin
    create_us   INTEGER NOT NULL,
    last_use_us INTEGER,
    expire_us   INTEGER,
    revoke_us   INTEGER
) STRICT, WITHOUT ROWID;
