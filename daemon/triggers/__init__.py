"""From the jobs that a document of triggers or a pipeline names to jobs that can be submitted, written or run."""
