import numpy as np
from numpy.typing import NDArray

def ranges(
    values: NDArray[np.floating], weights: NDArray[np.float64] | None, n_threads: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, int] | None]: ...
def first_not_finite(values: NDArray[np.floating], n_threads: int) -> tuple[int, int] | None: ...
def held(state: dict[str, object], names: tuple[str, ...], arrays: tuple[object, ...]) -> bool: ...
def moments(
    values: NDArray[np.floating],
    weights: NDArray[np.float64] | None,
    origin: NDArray[np.float64],
    scale: NDArray[np.float64],
    n_threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
