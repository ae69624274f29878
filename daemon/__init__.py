"""The trusted side: CLI, supervisor, secrets, job server and store."""

VERSION = "0.1.0"
