"""Acceleration of a fixed point whose map climbs an objective."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .stats import Stats

__all__ = ["Anderson", "Extrapolation", "Gate", "HasCoordinates"]

Array = NDArray[np.float64]

# Differences that a step is made of.
MEMORY = 8
# Ridge on their correlations: what is smaller is rounding.
RIDGE = 1e-10
# Plain steps left that make extrapolation worth a try.
MANY_STEPS = 8
# While steps gain more than this a row (nats), the map is still looking for its optimum.
SEARCHING = 1e-2
# Plain steps between two steps refused, at most.
LONGEST_PAUSE = 32


class Gate:
    """Opens, for good, once plain steps have twice in turn shown that many are left.

    Near its fixed point the map gains rho^n (gain at first): the last two gains tell rho, and so
    how many steps it will take to a gain of `target`. While gains grow, or are large, it is not
    near.

    Parameters
    ----------
    target : float
        The gain that ends the climb, in nats, above rounding.
    total_weight : float
        Rows that the objective is a sum over.
    """

    def __init__(self, target: float, total_weight: float) -> None:
        self.target = target
        self.most = SEARCHING * total_weight
        self._last = 0.0
        self._in_turn = 0

    @property
    def open(self) -> bool:
        """Whether to extrapolate."""
        return self._in_turn > 1

    def observe(self, gain: float) -> None:
        """Take note of what a plain step gained."""
        if self.open:
            return
        near = 0 < gain < min(self._last, self.most)
        slow = near and gain * (gain / self._last) ** MANY_STEPS > self.target
        self._in_turn = self._in_turn + 1 if slow else 0
        self._last = gain


class Anderson:
    """Steps of Anderson's acceleration (type II), made safe for a map that climbs.

    With f_i = M(x_i) - x_i at the last points, the step from x goes to M(x) + sum_i gamma_i
    (M(x_i) - M(x)), where gamma makes |f + sum_i gamma_i (f_i - f)| least (Walker & Ni 2011,
    section 2, undamped). That is a secant form of Newton's step for f(x) = 0, and as happy to go
    to a saddle; EM's own step f is the gradient times a positive definite matrix (Xu & Jordan
    1996). So where it goes against f, the step is f |x - x_i|/|f - f_i| instead, from the last
    two points, the third of SQUAREM's lengths (Varadhan & Roland 2008, S3), up to a reach that
    grows and shrinks with success. A step that was refused clears the memory (as the restarts of
    Henderson & Varadhan 2019) and calls for plain ones, twice as many each time in turn.
    """

    def __init__(self) -> None:
        self._points: list[Array] = []
        self._steps: list[Array] = []
        self._reach = 4.0
        self._length = 0.0
        self._pause = 0
        self._next_pause = 1

    def propose(self, point: Array, image: Array) -> Array | None:
        """Return where to go from `point` (P,) in place of `image`, its map; None: there.

        Parameters
        ----------
        point, image : ndarray of shape (P,)
            Both are remembered; not to be changed afterwards.
        """
        step = image - point
        self._points = [*self._points[-MEMORY:], point]
        self._steps = [*self._steps[-MEMORY:], step]
        if self._pause > 0:
            self._pause -= 1
            return None
        if len(self._points) < 2:
            return None
        # No BLAS: its threads would show in the last bits.
        steps = np.array(self._steps[:-1]) - step
        points = np.array(self._points[:-1]) - point
        products = np.einsum("ip,jp->ij", steps, steps)
        norms = np.sqrt(np.diagonal(products))
        if not np.all(norms > 0):
            return None
        matrix = products / norms / norms[:, None] + RIDGE * np.eye(len(norms))
        gamma = np.linalg.solve(matrix, -np.einsum("ip,p->i", steps, step) / norms) / norms
        ahead = step + np.einsum("i,ip->p", gamma, points + steps)
        self._length = 0.0
        if (ahead * step).sum() <= 0:
            length = np.sqrt((points[-1] ** 2).sum()) / norms[-1]
            self._length = min(max(length, 1.0), self._reach)
            ahead = self._length * step
        return np.asarray(point + ahead)

    def accept(self) -> None:
        """Take note that the objective did not fall at the last proposal."""
        self._next_pause = 1
        if self._length == self._reach:
            self._reach *= 4

    def refuse(self) -> None:
        """Take note that it fell, or that there is nothing there."""
        if self._length:
            self._reach = max(1.0, self._length / 4)
        self._points, self._steps = self._points[-1:], self._steps[-1:]
        self._pause = self._next_pause
        self._next_pause = min(2 * self._pause, LONGEST_PAUSE)


@runtime_checkable
class HasCoordinates(Protocol):
    """What acceleration asks of a model. One that lacks it climbs by plain steps."""

    def coordinates(self, posterior: Stats, /) -> Array:
        """Unconstrained numbers for a posterior, (P,)."""

    def at_coordinates(self, coordinates: Array, like: Stats, /) -> Stats:
        """The posterior with these numbers, of as many rows as `like`."""


class Extrapolation:
    """What a climb tries in place of plain steps: `Anderson` in a model's coordinates.

    Parameters
    ----------
    model : HasCoordinates or None
        None: nothing is ever tried.
    target : float
        Gain that ends the climb; below it, only plain steps are taken.
    total_weight : float
    """

    def __init__(self, model: HasCoordinates | None, target: float, total_weight: float) -> None:
        self._model = model
        self._gate = Gate(target, total_weight)
        self._anderson = Anderson()
        self._gain = self._left = np.inf
        # Coordinates of the posterior to come: the last image's, or the proposal's once accepted.
        self._point: Array | None = None
        self._proposal: Array | None = None

    def propose(self, posterior: Stats, image: Stats) -> Stats | None:
        """Return where to go from `posterior` in place of `image`, its map; None: there."""
        model, point = self._model, self._point
        if model is None or not self._gate.open:
            return None
        self._point = None
        try:
            point = model.coordinates(posterior) if point is None else point
            self._point = model.coordinates(image)
            self._proposal = self._anderson.propose(point, self._point)
            # Where little was gained, two plain steps tell whether little is left.
            near = self._gain <= self._gate.target and self._left == np.inf
            if self._proposal is None or near:
                return None
            return model.at_coordinates(self._proposal, image)
        except np.linalg.LinAlgError:
            self._anderson.refuse()
            return None

    def observe(self, gain: float, left: float) -> None:
        """Take note of what a plain step gained, and what seems to be left; inf: not known."""
        self._gate.observe(gain)
        self._gain, self._left = gain, left

    def accept(self, gain: float) -> None:
        """Take note that the last proposal was taken, and gained something."""
        self._anderson.accept()
        self._point = self._proposal
        self._gain, self._left = gain, np.inf

    def refuse(self) -> None:
        """Take note that the last proposal was of no use."""
        self._anderson.refuse()
