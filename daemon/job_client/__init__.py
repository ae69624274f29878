"""JobService seen from the CLI: blocking calls, plain values out, one clear error each.

grpc is imported by this package, and this package only by the commands that call the server.
"""
