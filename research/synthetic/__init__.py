"""Synthetic faces: the appearance model, and the data set drawn from it."""
