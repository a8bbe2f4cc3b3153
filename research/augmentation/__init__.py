"""Transforms of samples: crops, corruptions, occlusions, heads turned in three dimensions."""
