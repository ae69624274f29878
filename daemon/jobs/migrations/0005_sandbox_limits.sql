-- The bounds of the sandbox and what kept them, as JSON: lists of name, value and keeper.
ALTER TABLE jobs ADD COLUMN sandbox_limits TEXT NOT NULL DEFAULT '[]';
ALTER TABLE attempts ADD COLUMN sandbox_limits TEXT NOT NULL DEFAULT '[]';
