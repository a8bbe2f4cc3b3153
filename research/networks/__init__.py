"""Networks by name, checkpoints, transfer to other layouts, export, inspection, and the terms of
weights."""
