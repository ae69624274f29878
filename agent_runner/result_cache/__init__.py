"""Results of jobs that are used again: what a result depends on, and where results are kept."""
