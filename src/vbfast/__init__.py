"""vbfast: latent-variable models at the speed of the machine.

Full inference by sampling, mean field, EM, variational EM and crisp EM, all on one loop and one
set of compiled kernels. See `GaussianMixture`, `BayesianGaussianMixture` and `FactorialHMM`; under
them are the parts themselves, `Model`, the methods and `sweeps`.
"""

from __future__ import annotations

from . import datasets
from ._config import show_config
from ._version import __version__
from .compare import Comparison, compare
from .data import ArrayData
from .emissions import (
    AdditiveGaussian,
    Bernoulli,
    Categorical,
    Exponential,
    Gaussian,
    Poisson,
    Product,
)
from .estimators import (
    BayesianGaussianMixture,
    FactorialHMM,
    GaussianMixture,
    HiddenMarkovModel,
    ManyFits,
    MixtureModel,
    fit_many,
)
from .exceptions import (
    ConvergenceWarning,
    DegenerateError,
    ImpossibleRowError,
    NotFittedError,
    ObjectiveFellWarning,
    SpuriousWarning,
    ThreadsWarning,
    TruncationWarning,
)
from .ladders import Ladder, LadderRow, compare_factorial_hmm, compare_hmm
from .latents import Chain, CoupledChains, Mixture
from .methods import EM, CrispEM, FullInference, MeanField, VariationalEM, sweeps
from .model import Model
from .stats import Stats

#: A model of coupled chains and an additive emission, by its former name.
FactorialModel = Model

__all__ = [
    "EM",
    "AdditiveGaussian",
    "ArrayData",
    "BayesianGaussianMixture",
    "Bernoulli",
    "Categorical",
    "Chain",
    "Comparison",
    "ConvergenceWarning",
    "CoupledChains",
    "CrispEM",
    "DegenerateError",
    "Exponential",
    "FactorialHMM",
    "FactorialModel",
    "FullInference",
    "Gaussian",
    "GaussianMixture",
    "HiddenMarkovModel",
    "ImpossibleRowError",
    "Ladder",
    "LadderRow",
    "ManyFits",
    "MeanField",
    "Mixture",
    "MixtureModel",
    "Model",
    "NotFittedError",
    "ObjectiveFellWarning",
    "Poisson",
    "Product",
    "SpuriousWarning",
    "Stats",
    "ThreadsWarning",
    "TruncationWarning",
    "VariationalEM",
    "__version__",
    "compare",
    "compare_factorial_hmm",
    "compare_hmm",
    "datasets",
    "fit_many",
    "show_config",
    "sweeps",
]
