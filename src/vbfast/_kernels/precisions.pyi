from vbfast._kernels.inputs import Array

def of_independent_means(
    dof: Array,
    strength: Array,
    scatter: Array,
    gap: Array,
    pull: Array,
    seed: int | None,
    out: Array,
) -> int: ...
