"""The use-cases of ``runner local``, one module each: start, stop, restart, status, log_files.

Nothing is imported here, so that a command loads only what it does.
"""
