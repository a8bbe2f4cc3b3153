"""Predictions as a start for labeling, and the audit of labels."""
