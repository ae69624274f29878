"""What ``runner doctor`` looks at: one module per area, each a list of findings."""
