"""Generated API of runner, one sub-package per version; nothing here is written by hand."""
