"""Figures, helpers of the notebooks, the HTML page of a run."""
