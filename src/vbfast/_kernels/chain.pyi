from typing import Any

import numpy as np
from numpy.typing import NDArray

from .inputs import Assignment, Block, Coefficients, Kernel

KINDS: tuple[str, ...]
EMISSIONS: dict[str, Any]

def statistics_size(
    emission: Kernel, n_components: int, n_features: int, n_categories: int = 0
) -> int: ...
def visit(
    block: Block,
    theta: Coefficients,
    assignment: Assignment,
    *,
    statistics: NDArray[np.float64] | None = None,
    log_z: NDArray[np.float64] | None = None,
    labels: NDArray[np.int64] | None = None,
    q: NDArray[np.float64] | None = None,
) -> int: ...
