"""Job server and agent-runner without a daemon above them, as a service manager or a container engine starts them in staging."""
