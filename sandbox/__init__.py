"""The trust boundary: sandboxes, environment, limits, masking."""
