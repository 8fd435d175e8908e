"""What every estimator does: parameters, checks of arguments, scikit-learn's tags.

scikit-learn isn't imported: an estimator only does what its conventions ask for.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data import as_rows
from ..exceptions import not_fitted_error

__all__ = ["Estimator", "feature_names"]


class Estimator(ABC):
    """Parameters by introspection of the constructor, as scikit-learn has them."""

    n_features_in_: int

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return sorted(name for name in inspect.signature(cls.__init__).parameters if name != "self")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters and their values.

        Parameters
        ----------
        deep : bool
            Taken for scikit-learn's sake; no parameter is an estimator.
        """
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the constructor by name; returns the estimator.

        Raises
        ------
        ValueError
            If a name is not a parameter; nothing is set then.
        """
        names = self._parameter_names()
        for name in params:
            if name not in names:
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {self}. Valid parameters are: "
                    f"{names}."
                )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        parts = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value is not defaults[name].default and repr(value) != repr(defaults[name].default)
        ]
        return f"{type(self).__name__}({', '.join(parts)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type="density_estimator",
            target_tags=TargetTags(required=False),
            input_tags=InputTags(),
        )

    @abstractmethod
    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is enough to predict with."""

    def _check_is_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise not_fitted_error(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
                "appropriate arguments before using this estimator."
            )

    def _rows(self, X: ArrayLike, n_features: int) -> NDArray[Any]:
        """X as rows of as many features as were fitted."""
        values = as_rows(X)
        if values.shape[1] != n_features:
            raise ValueError(
                f"X has {values.shape[1]} features, but {type(self).__name__} is expecting "
                f"{n_features} features as input"
            )
        fitted, given = getattr(self, "feature_names_in_", None), feature_names(X)
        if fitted is not None and given is not None and list(fitted) != list(given):
            raise ValueError(
                "The feature names should match those that were passed during fit: "
                f"{list(fitted)}, not {list(given)}"
            )
        return values


def feature_names(X: Any) -> NDArray[np.object_] | None:
    """Column names of a data frame where all are strings, else None."""
    columns = getattr(X, "columns", None)
    if columns is None or not all(isinstance(name, str) for name in columns):
        return None
    return np.asarray(list(columns), dtype=object)
