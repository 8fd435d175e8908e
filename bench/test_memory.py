"""Peak memory, each figure from a process of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import memory
import pytest
from report import Report


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("task", ["fit", "predict", "score_samples"])
def test_memory(task: str, report: Report) -> None:
    figures = {}
    for library, tasks in memory.TASKS.items():
        if task in tasks and (library != "oneDAL" or find_spec("daal4py") is not None):
            command = [sys.executable, memory.__file__, library, task]
            figures[library] = float(subprocess.check_output(command, text=True))
    report.add("memory", task, figures)
