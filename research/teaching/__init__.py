"""Checks of the exercises of the notebooks."""
