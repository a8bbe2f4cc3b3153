"""Networks by name, checkpoints, transfer to other layouts, export, inspection, terms of the weights."""
