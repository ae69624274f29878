"""The trusted side: CLI, supervisor, secrets, job server and store."""
