"""What keeps the bounds of a command: control groups of the kernel, or a look now and then."""
