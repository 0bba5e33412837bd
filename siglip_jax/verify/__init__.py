"""Is a model right? Published numbers, checks without them, and the other systems, live."""
