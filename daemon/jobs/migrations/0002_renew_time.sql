-- When the agent-runner of an attempt last named it; NULL for an assignment that may never have arrived.
ALTER TABLE attempts ADD COLUMN renew_us INTEGER;
