"""Metrics, and the table of results."""
