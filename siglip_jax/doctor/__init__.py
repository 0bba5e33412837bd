"""Which setting of another pipeline is wrong, and what it costs."""
