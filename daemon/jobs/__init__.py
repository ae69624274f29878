"""Jobs: states, models, the store port and its backends, log files, the queue."""
