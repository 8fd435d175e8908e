import numpy as np
from numpy.typing import NDArray

def ranges(
    values: NDArray[np.floating],
    weights: NDArray[np.float64] | None,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> tuple[int, int] | None: ...
