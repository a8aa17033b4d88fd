"""The kinds of functions that a consumer can run."""
