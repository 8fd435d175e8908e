"""Compiled kernels: what visits every data point. They know no method and no estimator.

Every kernel is compiled once for each SIMD level of the build; this package loads one level, the
best that the processor has or the one that the environment variable ``VBFAST_SIMD`` names
(``v2``, ``v3`` or ``v4`` on x86-64). What computes with tiles is compiled a second time for float32
arithmetic (``mixture_single``).
"""

from __future__ import annotations

import importlib
import os
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING

from . import cpu

if TYPE_CHECKING:
    from . import (
        chain,
        columns,
        discrete,
        factorial,
        gaussian,
        loop,
        mixture,
        parameters,
        precisions,
        product,
        seeds,
        stationary,
        triangle,
    )
    from . import mixture as mixture_single

__all__ = [
    "available_levels",
    "chain",
    "columns",
    "cpu",
    "discrete",
    "factorial",
    "gaussian",
    "level",
    "load",
    "loop",
    "mixture",
    "mixture_single",
    "parameters",
    "precisions",
    "product",
    "seeds",
    "stationary",
    "triangle",
]


def available_levels() -> list[str]:
    """SIMD levels that this build has and this processor can run, lowest first."""
    highest = cpu.level()
    names = ["base"] if highest == 0 else [f"v{n}" for n in range(2, highest + 1)]
    return [
        name for name in dict.fromkeys([*names, "base"]) if find_spec(f"{__name__}.mixture_{name}")
    ]


def _choose_level() -> str:
    levels = available_levels()
    wanted = os.environ.get("VBFAST_SIMD", "")
    if not wanted:
        return levels[-1]
    if wanted not in levels:
        raise ImportError(
            f"VBFAST_SIMD={wanted!r}: this processor and this build of vbfast have "
            f"{', '.join(levels)}"
        )
    return wanted


def load(level: str) -> SimpleNamespace:
    """Return the kernels of one level, with the emissions known to those that call them."""
    kernels = (
        "chain",
        "columns",
        "discrete",
        "factorial",
        "gaussian",
        "gaussian_single",
        "loop",
        "mixture",
        "mixture_single",
        "parameters",
        "precisions",
        "product",
        "seeds",
        "stationary",
        "triangle",
    )
    modules = SimpleNamespace(
        **{name: importlib.import_module(f"{__name__}.{name}_{level}") for name in kernels}
    )
    for caller in (modules.chain, modules.loop, modules.mixture, modules.parameters):
        caller.EMISSIONS.update(modules.gaussian.EMISSIONS)
        caller.EMISSIONS.update(modules.discrete.EMISSIONS)
    for caller in (modules.chain, modules.mixture):
        caller.EMISSIONS.update(modules.product.EMISSIONS)
    modules.mixture_single.EMISSIONS.update(modules.gaussian_single.EMISSIONS)
    return modules


level: str = _choose_level()

if not TYPE_CHECKING:
    _loaded = load(level)
    chain, columns, discrete = _loaded.chain, _loaded.columns, _loaded.discrete
    factorial, gaussian = _loaded.factorial, _loaded.gaussian
    loop, mixture, mixture_single = _loaded.loop, _loaded.mixture, _loaded.mixture_single
    parameters, precisions, product = _loaded.parameters, _loaded.precisions, _loaded.product
    seeds, stationary, triangle = _loaded.seeds, _loaded.stationary, _loaded.triangle
