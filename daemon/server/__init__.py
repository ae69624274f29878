"""The gRPC edge of the job server."""
