"""What the root modules are built from: data sets, augmentation, metrics, export, sweeps, figures.
Needs PyTorch."""
