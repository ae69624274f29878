"""Version 1 of the wire API, compiled from the .proto files beside this file."""
