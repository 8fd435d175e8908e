import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

def stationary(transitions: Array) -> Array: ...
def highest(first: Array, moves: Array, begin: Array, other: Array) -> tuple[Array, Array]: ...
