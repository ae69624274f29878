"""Several jobs as one: read from a file, run here or submitted, recorded and drawn."""
