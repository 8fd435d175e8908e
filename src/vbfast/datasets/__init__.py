"""Small real data sets that ship with the package."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

import numpy as np
from numpy.typing import NDArray

__all__ = ["csv_file", "load_earthquakes", "load_faithful"]


def csv_file(name: str) -> Traversable:
    """Return the CSV file of a data set: a header line, then one row per observation."""
    return resources.files(__name__) / f"{name}.csv"


def _load(name: str) -> NDArray[np.float64]:
    with csv_file(name).open(encoding="utf-8") as file:
        return np.loadtxt(file, delimiter=",", skiprows=1, ndmin=2)


def load_faithful() -> NDArray[np.float64]:
    """Return the Old Faithful geyser's eruptions and the waits between them.

    Returns
    -------
    ndarray of shape (272, 2)
        Columns ``eruptions`` (an eruption's length) and ``waiting`` (time to the next), in minutes.

    References
    ----------
    Azzalini, A. and Bowman, A. W. (1990). A look at some data on the Old Faithful geyser.
    *Applied Statistics* 39, 357-365.
    """
    return _load("faithful")


def load_earthquakes() -> NDArray[np.float64]:
    """Return how many earthquakes of magnitude 7 or more there were on Earth each year.

    Returns
    -------
    ndarray of shape (107, 1)
        Counts of the years 1900 to 2006.

    References
    ----------
    Zucchini, W. and MacDonald, I. L. (2009). *Hidden Markov Models for Time Series*. Table 1.1.
    """
    return _load("earthquakes")[:, 1:]
