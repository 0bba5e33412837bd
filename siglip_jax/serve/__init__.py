"""A service over HTTP."""
