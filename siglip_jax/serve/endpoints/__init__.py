"""One file a family of paths; each has `OPERATIONS`."""
