"""The contents of outputs on the disk of the job server, by digest."""
