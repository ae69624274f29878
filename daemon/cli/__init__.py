"""The command line: one module per group, loaded when it is used."""
