from typing import Any

import numpy as np
from numpy.typing import NDArray

from .inputs import Assignment, Mixtures

Array = NDArray[np.float64]

EMISSIONS: dict[str, Any]

class Rows:
    n_problems: int
    n_features: int
    origin: Array
    scale: Array
    variance: Array
    def __init__(self, values: list[NDArray[Any]], weights: list[Array] | None = None) -> None: ...
    def set_frames(self, origin: Array, scale: Array, variance: Array) -> None: ...
    def find_frames(
        self, isotropic: bool, n_threads: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64], Array, Array]: ...

class Stopping:
    target: float
    left: float
    def __init__(self, tol: float, total_weight: float, n_rows: int) -> None: ...
    def settled(self, gain: float, rounding: float) -> bool: ...
    def went_ahead(self, gain: float) -> None: ...

def rounding(objective: float, total_weight: float, prior: Array, n_normalisers: int) -> float: ...
def begin_all(
    rows: Rows,
    models: Mixtures,
    init: str,
    seeds: NDArray[np.uint64],
    posterior: Array,
    n_threads: int,
    *,
    kmeans_sweeps: int,
    kmeans_tol: float,
    spread: float,
    labels: NDArray[np.int64] | None = None,
) -> None: ...
def run(
    rows: Rows,
    models: Mixtures,
    read: str,
    assignment: Assignment,
    posterior: Array,
    n_sweeps: int,
    n_threads: int,
    *,
    state: NDArray[np.int64],
    theta: Array,
    constant: Array | None = None,
    tol: float = 0.0,
    seeds: NDArray[np.uint64] | None = None,
    first_sweep: int = 0,
    thin: int = 0,
    best: Array | None = None,
    common: Array | None = None,
    terms: Array | None = None,
) -> Array: ...
