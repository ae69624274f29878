"""The container backend: commands in containers of an engine that speaks the Docker Engine API."""
