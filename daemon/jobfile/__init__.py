"""Reads job files: YAML or JSON to JobSpec, with positions in every error."""
