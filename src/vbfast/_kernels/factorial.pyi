import numpy as np
from numpy.typing import NDArray

from .inputs import Block, CoupledCoefficients

KINDS: dict[str, int]

def statistics_size(n_chains: int, n_components: int, n_features: int) -> int: ...
def visit(
    block: Block,
    theta: CoupledCoefficients,
    kind: str,
    *,
    statistics: NDArray[np.float64],
    seed: int = 0,
    sweep: int = 0,
    block_states: int = 4096,
    n_trials: int = 200,
) -> None: ...
