"""Peak memory of one call in a process of its own: ``python memory.py LIBRARY TASK``, in MB.

What the process holds at its peak during the call, beyond what it held before: data, imports, and
whatever a call on a few rows leaves behind.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_ROWS, N_FEATURES, N_COMPONENTS = 1_000_000, 16, 32
N_THREADS = 2
FEW = 2000
SWEEPS = 1
TASKS = {
    "vbfast": ("fit", "predict", "score_samples"),
    "sklearn": ("fit", "predict", "score_samples"),
    "oneDAL": ("fit",),
}


def peak() -> int:
    """Most bytes of memory that this process has held so far."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]


def rows() -> NDArray[np.float64]:
    """Gaussians with means about 4 apart, made in place: nothing but the data is touched."""
    rng = np.random.default_rng(0)
    X = np.empty((N_ROWS, N_FEATURES))
    rng.standard_normal(out=X)
    means = rng.normal(scale=4 / np.sqrt(2 * N_FEATURES), size=(N_COMPONENTS, N_FEATURES))
    for k in range(N_COMPONENTS):
        X[k::N_COMPONENTS] += means[k]
    return X


def call(library: str, task: str, X: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], Any]:
    """Return the call, as a function of the data."""
    options: dict[str, Any] = {"max_iter": SWEEPS, "tol": 0.0, "random_state": 0}
    if library == "oneDAL":
        import daal4py

        daal4py.daalinit(N_THREADS)
        weights = np.full((1, N_COMPONENTS), 1 / N_COMPONENTS)
        em = daal4py.em_gmm(nComponents=N_COMPONENTS, maxIterations=SWEEPS, accuracyThreshold=0.0)
        start = (weights, X[:N_COMPONENTS].copy(), [np.eye(N_FEATURES)] * N_COMPONENTS)
        return lambda X: em.compute(X, *start)
    if library == "vbfast":
        import vbfast

        model: Any = vbfast.GaussianMixture(N_COMPONENTS, n_threads=N_THREADS, **options)
    else:
        from sklearn.mixture import GaussianMixture
        from threadpoolctl import threadpool_limits

        threadpool_limits(N_THREADS)
        model = GaussianMixture(N_COMPONENTS, **options)
    model.fit(X[:FEW])
    return getattr(model, task)  # type: ignore[no-any-return]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    X = rows()
    function = call(*sys.argv[1:], X)
    function(X[:FEW])
    before = peak()
    function(X)
    print((peak() - before) / 1e6)
