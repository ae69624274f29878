"""Starts, watches, restarts and stops the other processes."""
