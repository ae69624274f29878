"""Prepares what a job works on, on the trusted side, before its command: a copy, or a checkout of a git repository."""
