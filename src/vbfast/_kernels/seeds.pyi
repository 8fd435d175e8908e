import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

def choose(columns: Array, weights: Array, candidates: Array, nearest: Array) -> int: ...
