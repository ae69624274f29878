"""The filesystem sandbox: a workspace on this host behind walls of the kernel, in three tiers."""
