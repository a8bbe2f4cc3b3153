"""Parts of a training run: losses, folders and state of runs, knowledge distillation."""
