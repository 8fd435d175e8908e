"""What this installation is made of."""

from __future__ import annotations

import numpy as np
import scipy

from . import _kernels
from ._threads import available_threads
from ._version import __version__

__all__ = ["show_config"]


def show_config() -> None:
    """Print the versions, the SIMD level and the threads that vbfast works with."""
    openmp = _kernels.cpu.openmp()
    lines = {
        "vbfast": __version__,
        "SIMD level": f"{_kernels.level} (of {', '.join(_kernels.available_levels())})",
        "OpenMP": f"{openmp}, {available_threads()} threads" if openmp else "no, 1 thread",
        "NumPy": np.__version__,
        "SciPy": scipy.__version__,
    }
    for name, value in lines.items():
        print(f"{name:<12}{value}")
