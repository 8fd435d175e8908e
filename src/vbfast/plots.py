"""Pictures of fitted mixtures and of comparisons.

They need matplotlib (``pip install vbfast[plot]``), but not pyplot: drawing changes nothing
global and needs no display.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .compare import Comparison
    from .estimators import BayesianGaussianMixture, GaussianMixture

__all__ = ["plot_comparison", "plot_gaussian_mixture"]

_MAX_POINTS = 20_000  # more would only cover each other and take long to draw
_LEAST_WEIGHT = 1e-3  # components lighter than that are empty, to the eye
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b2182b", "#6a51a3")


def plot_gaussian_mixture(
    estimator: BayesianGaussianMixture | GaussianMixture,
    X: ArrayLike,
    ax: Axes | None = None,
    *,
    feature_names: Sequence[str] | None = None,
) -> Axes:
    """Draw a fitted Gaussian mixture over the data.

    With two features or more: the rows and, for each component, its mean and the ellipses one and
    two standard deviations from it, on the first two features. With one feature: a histogram of the
    data, each component's weighted density, and their sum.

    Parameters
    ----------
    estimator : GaussianMixture or BayesianGaussianMixture
        Fitted.
    X : array-like of shape (n_rows, n_features)
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure, which is ``.figure`` of what is returned.
    feature_names : sequence of str, optional
        Labels of the axes.

    Returns
    -------
    matplotlib Axes
    """
    X = np.asarray(X)
    names = list(feature_names or [f"feature {j}" for j in range(X.shape[1])])
    if ax is None:
        ax = _new_figure((6, 4.5)).add_subplot()
    if X.shape[1] == 1:
        _draw_densities(estimator, X[:, 0], ax)
        ax.set(xlabel=names[0], ylabel="density")
    else:
        _draw_ellipses(estimator, X, ax)
        ax.set(xlabel=names[0], ylabel=names[1])
    return ax


def plot_comparison(
    comparison: Comparison,
    X: ArrayLike,
    path: str | os.PathLike[str] | None = None,
    *,
    feature_names: Sequence[str] | None = None,
) -> Figure:
    """Draw a comparison: each method's components over the data and, below, its figures.

    Parameters
    ----------
    comparison : Comparison
    X : array-like of shape (n_rows, n_features)
        The data that were compared on.
    path : path-like, optional
        File to write, in the format that its ending names.
    feature_names : sequence of str, optional
        Labels of the axes.

    Returns
    -------
    matplotlib Figure
    """
    rows = comparison.rows
    figure = _new_figure((max(3.1 * len(rows), 13), 6.4))
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 0.8))

    top = grid[0].subgridspec(1, len(rows))
    first = None
    for j, row in enumerate(rows):
        ax = figure.add_subplot(top[j], sharex=first, sharey=first)
        plot_gaussian_mixture(row.estimator, X, ax, feature_names=feature_names)
        symbols = f"{row.q},  {row.theta}".replace("_MP", r"$_\mathrm{MP}$")
        ax.set_title(f"{row.label}\n{symbols}", fontsize=10)
        if first is None:
            first = ax
        else:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)

    titles = ["log p(X)   (open circle: + log K!)", "seconds"]
    if comparison.folds:
        titles.insert(1, f"held-out log density per row ({comparison.folds}-fold)")
    bottom = grid[1].subgridspec(1, len(titles))
    panels = [figure.add_subplot(bottom[j], title=title) for j, title in enumerate(titles)]
    _draw_log_marginal(comparison, panels[0])
    if comparison.folds:
        _draw_dots(panels[1], [row.held_out for row in rows], "{:.4f}")
    _draw_dots(panels[-1], [row.seconds for row in rows], "{:.3g} s")
    for panel in panels:
        panel.title.set_fontsize(10)
        panel.margins(x=0.5)  # room for the labels of the outermost dots
        panel.ticklabel_format(axis="x", useOffset=False)
        panel.locator_params(axis="x", nbins=5)
        panel.set_yticks(range(len(rows)), [row.label for row in rows])
        panel.set_ylim(len(rows) - 0.4, -0.8)
        panel.grid(axis="x", alpha=0.3)
    for panel in panels[1:]:
        panel.tick_params(labelleft=False)
    panels[-1].set_xscale("log")

    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def _new_figure(size: tuple[float, float]) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install vbfast[plot]") from error
    return Figure(figsize=size, layout="constrained")


def _covariances(estimator: Any) -> NDArray[np.float64]:
    """Return the covariances as (n_components, n_features, n_features), whatever their type."""
    n_components, n_features = estimator.means_.shape
    covariances = np.asarray(estimator.covariances_)
    match estimator.covariance_type:
        case "full":
            return covariances
        case "tied":
            return np.broadcast_to(covariances, (n_components, n_features, n_features))
        case "diag":
            return covariances[:, :, None] * np.eye(n_features)
        case _:
            return covariances[:, None, None] * np.eye(n_features)


def _in_order(estimator: Any) -> list[tuple[float, NDArray[np.float64], NDArray[np.float64], str]]:
    """Return weight, mean, covariance and colour of the components that aren't empty.

    Components have no order of their own; sorted by their means' first feature, a component looks
    alike in every method's panel.
    """
    order = np.argsort(estimator.means_[:, 0], kind="stable")
    order = order[estimator.weights_[order] > _LEAST_WEIGHT]
    covariances = _covariances(estimator)
    return [
        (
            float(estimator.weights_[k]),
            estimator.means_[k],
            covariances[k],
            _COLORS[j % len(_COLORS)],
        )
        for j, k in enumerate(order)
    ]


def _draw_ellipses(estimator: Any, X: NDArray[Any], ax: Axes) -> None:
    from matplotlib.patches import Ellipse

    shown = X[:: -(-len(X) // _MAX_POINTS)]
    ax.scatter(
        shown[:, 0], shown[:, 1], s=6, color="0.55", linewidths=0, alpha=0.7, rasterized=True
    )
    for _, mean, covariance, color in _in_order(estimator):
        variances, axes = np.linalg.eigh(covariance[:2, :2])
        lengths = 2 * np.sqrt(np.maximum(variances, 0))
        angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))
        for deviations, alpha in ((1, 0.3), (2, 0.15)):
            ax.add_patch(
                Ellipse(
                    (mean[0], mean[1]),
                    deviations * lengths[1],
                    deviations * lengths[0],
                    angle=angle,
                    facecolor=(color, alpha),
                    edgecolor=color,
                    linewidth=1,
                )
            )
        ax.plot(mean[0], mean[1], "+", color="black", markersize=7)
    # The data's frame, whatever the ellipses: an empty component's is as wide as its prior.
    low, high = X[:, :2].min(axis=0), X[:, :2].max(axis=0)
    margin = np.where(high > low, 0.12 * (high - low), 0.5)
    ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
    ax.set_ylim(low[1] - margin[1], high[1] + margin[1])


def _draw_densities(estimator: Any, x: NDArray[Any], ax: Axes) -> None:
    ax.hist(x, bins="auto" if len(np.unique(x)) > 1 else 10, density=True, color="0.85")
    margin = 0.05 * (np.ptp(x) or 1.0)
    points = np.linspace(x.min() - margin, x.max() + margin, 1000)
    total = np.zeros_like(points)
    for weight, mean, covariance, color in _in_order(estimator):
        variance = covariance[0, 0]
        density = (
            weight
            * np.exp(-0.5 * (points - mean[0]) ** 2 / variance)
            / np.sqrt(2 * np.pi * variance)
        )
        total += density
        ax.plot(points, density, color=color)
    ax.plot(points, total, color="black", linewidth=1, linestyle="--")


def _draw_log_marginal(comparison: Comparison, ax: Axes) -> None:
    rows = comparison.rows
    for j, row in enumerate(rows):
        value = row.log_marginal
        ax.errorbar(value, j, xerr=row.log_marginal_error, fmt="o", color=_COLORS[0], capsize=3)
        _label(ax, value, j, f"{value:.1f}, {row.kind}")
        beyond = row.log_marginal_all_labellings
        if beyond is not None and comparison.n_components > 1:
            ax.plot(beyond, j, "o", markerfacecolor="none", color=_COLORS[0])


def _draw_dots(ax: Axes, values: list[float | None], form: str) -> None:
    for j, value in enumerate(values):
        if value is not None and np.isfinite(value):
            ax.plot(value, j, "o", color=_COLORS[0])
            _label(ax, value, j, form.format(value))


def _label(ax: Axes, x: float, y: float, text: str) -> None:
    """Write a figure just above its dot."""
    ax.annotate(text, (x, y), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)
