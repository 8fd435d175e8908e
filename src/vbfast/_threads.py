"""How many threads a call may take."""

from __future__ import annotations

import functools
import math
import os
import sys
from operator import index
from pathlib import Path

from . import _kernels

__all__ = ["available_threads", "resolve_threads"]


@functools.cache
def _cgroup_cpus() -> int:
    """CPUs that the control group grants, rounded up; very many where it sets no limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu/cpu.cfs_quota_us").read_text()
            period = (folder / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return sys.maxsize
    try:
        return max(1, math.ceil(int(quota) / int(period))) if int(quota) > 0 else sys.maxsize
    except ValueError:  # "max"
        return sys.maxsize


def available_threads() -> int:
    """The smallest of CPU affinity, cgroup quota and OMP_NUM_THREADS; 1 in a forked child."""
    if _kernels.cpu.forked() or not _kernels.cpu.openmp():
        return 1
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else (os.cpu_count() or 1)
    return max(1, min(cpus, _cgroup_cpus(), _kernels.cpu.default_threads()))


def resolve_threads(n_threads: int | None) -> int:
    """Threads for a call; raises where `n_threads` is neither None nor a whole number >= 1.

    No more than some for each processor; kernels take fewer where there is little to do.
    """
    if n_threads is None:
        return available_threads()
    allowed = f"n_threads must be None or an integer >= 1, not {n_threads!r}"
    if isinstance(n_threads, bool):
        raise TypeError(allowed)
    try:
        n_threads = index(n_threads)
    except TypeError:
        raise TypeError(allowed) from None
    if n_threads < 1:
        raise ValueError(allowed)
    if _kernels.cpu.forked() or not _kernels.cpu.openmp():
        return 1
    return min(n_threads, _kernels.cpu.most_threads())
