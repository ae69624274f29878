"""Runs one job in both kinds of sandbox and tells in what the two verdicts differ."""
