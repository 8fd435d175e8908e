"""What a machine can do at best, and which machine it is."""

from __future__ import annotations

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from vbfast import _kernels

THREADS = (1, 2)
MATRIX_SIZE = 1500
# Doubles that stay in a first-level cache together with their exponentials.
EXP_SIZE = 2048


@dataclass
class Rates:
    """Rates per second, by number of threads, as they were measured again and again in a run."""

    multiply_adds: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in THREADS})
    exps: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in THREADS})

    def measure(self) -> None:
        for n_threads in THREADS:
            self.multiply_adds[n_threads].append(_dgemm_rate(n_threads))
            self.exps[n_threads].append(_exp_rate(n_threads))

    def floor(self, multiply_adds: float, exps: float, n_threads: int, when: slice) -> float:
        """Seconds that this much work takes at the median rates then."""
        return multiply_adds / median(self.multiply_adds[n_threads][when]) + exps / median(
            self.exps[n_threads][when]
        )

    def share(self, when: slice) -> float:
        """Median dgemm rate of two threads then, as a share of twice the best of one."""
        return median(self.multiply_adds[2][when]) / (2 * max(self.multiply_adds[1]))

    def __len__(self) -> int:
        """Measurements so far."""
        return len(self.multiply_adds[1])

    def summary(self) -> dict[str, float]:
        """Return the best rates for each number of threads."""
        out = {}
        for n in THREADS if len(self) else ():
            out[f"dgemm on {n} thread(s), multiply-adds / s"] = max(self.multiply_adds[n])
            out[f"exp on {n} thread(s), 1 / s"] = max(self.exps[n])
        return out


@cache
def _matrices() -> NDArray[np.float64]:
    return np.ones((3, MATRIX_SIZE, MATRIX_SIZE))


def _dgemm_rate(n_threads: int) -> float:
    left, right, out = _matrices()
    with threadpool_limits(n_threads, user_api="blas"):
        start = perf_counter()
        np.matmul(left, right, out=out)
        return MATRIX_SIZE**3 / (perf_counter() - start)


def _exp_rate(n_threads: int) -> float:
    """Of `n_threads` threads that each run NumPy's exp, the sum of their best."""

    def best(_: int) -> float:
        x = np.linspace(-30.0, 0.0, EXP_SIZE)
        out = np.empty_like(x)
        seconds = []
        for _ in range(1000):
            start = perf_counter()
            np.exp(x, out=out)
            seconds.append(perf_counter() - start)
        return EXP_SIZE / min(seconds)

    with ThreadPoolExecutor(n_threads) as pool:
        return sum(pool.map(best, range(n_threads)))


def processor() -> str:
    """Name of the processor."""
    if Path("/proc/cpuinfo").exists():
        fields = dict(
            line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if line
        )
        fields = {name.strip(): value.strip() for name, value in fields.items()}
        if "model name" in fields:
            numbers = [fields.get(key, "?") for key in ("cpu family", "model", "stepping")]
            return f"{fields['model name']} (family {numbers[0]}, model {numbers[1]})"
    return platform.processor() or platform.machine()


def describe() -> dict[str, str]:
    """Processor and versions: all that a reader needs, and nothing that names one machine."""
    blas = {
        f"{lib['internal_api']} {lib['version']}"
        for lib in threadpool_info()
        if lib["user_api"] == "blas"
    }
    out = {
        "processor": processor(),
        "logical processors": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "SIMD level": _kernels.level,
        "Python": platform.python_version(),
        "BLAS": ", ".join(sorted(blas)),
    }
    names = {"vbfast": "vbfast", "NumPy": "numpy", "scikit-learn": "scikit-learn", "oneDAL": "daal"}
    for name, package in names.items():
        try:
            out[name] = version(package)
        except PackageNotFoundError:
            out[name] = "not installed"
    return out
