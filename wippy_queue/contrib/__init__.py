"""Integrations with web frameworks; each needs the extra of its name."""
