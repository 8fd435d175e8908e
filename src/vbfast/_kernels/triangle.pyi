import numpy as np
from numpy.typing import NDArray

def precision_factors(
    matrices: NDArray[np.float64],
    scale: NDArray[np.float64],
    tiny: float,
    room: NDArray[np.float64],
    out: NDArray[np.float64],
) -> int: ...
def pivoted_cholesky(
    matrix: NDArray[np.float64], pivots: NDArray[np.int32], room: NDArray[np.float64]
) -> int: ...
