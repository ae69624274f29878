"""Leases jobs and executes their attempts."""
