"""Metrics and intervals on plain arrays."""
