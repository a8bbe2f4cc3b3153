"""What the root modules are built from: data sets, augmentation, metrics, export, sweeps, figures.
Needs PyTorch.

Import it before PyTorch, whose OpenMP library reads once how waiting threads behave: they sleep
instead of spin. Spinning threads take the processor from every other process, and from one another
where cores are shared: next to one busy process, training on two cores takes many times as long.
Passive waiting costs a few percent on an idle machine (benchmarks/speed.py --busy). A value that
the user has set stays.
"""

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HOME = Path(__file__).resolve().parents[1]  # the folder of the repository
