"""Classification by a scale mixture of neural-network Gaussian processes."""

import dataclasses
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from jaxtyping import PRNGKeyArray
from posterax import Estimator, Trained, check_key
from posterax._precision import precision

from ._classification_data import as_labels, as_points
from ._classification_labels import fit_labels, log_largest_of_labels
from ._kernel import Kernel, check_positive
from ._regression import ScaleMixtureNNGP
from ._regression_settings import to_caller
from ._scale import ScalePosterior
from ._variational import Covariance, SparseProcess
from ._variational_fit import fit_process, latent_law, log_mean_softmax
from ._variational_law import SharedScaleStudentT
from ._variational_scale import check_numbers, scale_at_prior


class ScaleMixtureClassifier(Estimator):
    """Classes by latent functions, one for each, that are Gaussian processes with one random scale: f | s ~ GP(0, s K).

    method="variational": the sparse variational Student-t process with softmax likelihood. With `scale_prior`
    InverseGamma(alpha, beta) q(s) is an inverse gamma law and the latent law a Student-t process; with a Delta it is
    the Gaussian twin, whose scale, a readout variance, is learnt from where the Delta stands. Kernel, inducing points,
    q(s) and q(u | s) all maximise one bound of the evidence, in float64. Probabilities are softmax averaged over q. An
    approximation: the mean of q(u | s) does not depend on s, and given s the softmax's posterior is no Gaussian.

    method="labels": regression on one-hot labels, by `ScaleMixtureNNGP` with tied noise; takes every `scale_prior`.
    Probabilities are those that an entry of a new one-hot row, noise included, is the largest of the row: no softmax,
    the integral over all entries and s. The likeliest class is that of the largest predictive mean, which does not
    depend on s: with kernel and noise given, accuracy is the same for every scale prior.

    - `kernel`: its float fields are learnt, unless `learn_kernel` is False.
    - `scale_prior`: of s, for all classes together.
    - `num_inducing`: inducing points, at most the rows there are; None for 200, or exact inference with "labels".
    - `num_classes`: C, where some class may have no label in the data; else the labels tell.
    - `covariance`: "full", or "diagonal" in whitened coordinates: q's covariance at the inducing points.
    - `num_steps`, `batch_size`, `num_draws`: steps of training, rows of each, and draws of f in each.
    - `num_predictive_draws`: draws that `infer` averages softmax over.
    - `learning_rate`: of Adam, in the beginning; it falls to 0 along a cosine. `optimiser`: another one, from optax.
    - `learn_kernel`, `learn_scale`, `learn_inducing`: whether the kernel (with "labels" and the noise), the value of a
      Delta, and the inducing points are learnt; with "labels" by maximum marginal likelihood.
    - `jitter`: added to the diagonal of the inducing points' kernel matrix, as a part of its mean.
    - `noise`: of "labels", a variance relative to s, where learning begins.

    Fitted fields: `process` (a `SparseProcess`) and `report` (a `Trained`; its losses are negative bounds, in nats); or
    `regression` (a `ScaleMixtureNNGP`), for "labels".

    Source: Lee, Yun, Yang and Lee (2022), arXiv:2107.01408; Hensman, Matthews and Ghahramani (2015), AISTATS.
    """

    kernel: Kernel
    scale_prior: Any = dataclasses.field(default_factory=lambda: dist.InverseGamma(2.0, 2.0))
    method: Literal["variational", "labels"] = eqx.field(static=True, default="variational")
    num_inducing: int | None = None
    num_classes: int | None = None
    covariance: Covariance = eqx.field(static=True, default="full")
    num_steps: int = 3000
    batch_size: int = 100
    num_draws: int = 16
    num_predictive_draws: int = 1000
    learning_rate: float = 0.02
    optimiser: optax.GradientTransformation | None = None
    learn_kernel: bool = True
    learn_scale: bool = True
    learn_inducing: bool = True
    jitter: float = 1e-6
    noise: float = 0.1
    process: SparseProcess | None = None
    report: Trained | None = None
    regression: ScaleMixtureNNGP | None = None
    infers: ClassVar = "distribution"
    precision: ClassVar = 64

    def __check_init__(self):
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"`kernel` must be a kernel, such as MLPKernel(depth=3); got {self.kernel!r}.")
        for name, known in (("method", ("variational", "labels")), ("covariance", ("full", "diagonal"))):
            if getattr(self, name) not in known:
                raise ValueError(f"`{name}` must be one of {known}; got {getattr(self, name)!r}.")
        for name in ("num_inducing", "num_steps", "batch_size", "num_draws", "num_predictive_draws"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1; got {getattr(self, name)}.")
        if self.num_classes is not None and self.num_classes < 2:
            raise ValueError(
                f"`num_classes` must be at least 2; got {self.num_classes}. For one class nothing is open."
            )
        for name in ("learning_rate", "jitter", "noise"):
            check_positive(name, getattr(self, name))
        if self.method == "variational":
            scale_at_prior(self.scale_prior)
        elif isinstance(self.scale_prior, dist.InverseGamma | dist.Delta):
            check_numbers(self.scale_prior)

    def fit(self, data: Any, *, key: PRNGKeyArray, **run: Any) -> "ScaleMixtureClassifier":
        """A copy fitted to `data`, a pair (x, labels).

        - `x`: `(n, d)`, or `(n, height, width, channels)` for image kernels. Standardise columns first.
        - `labels`: `(n,)`, integers 0 ... C-1.
        - `**run`: `checkpoint`, `progress`, `throw`, `max_skipped` of `posterax.train`; none for "labels".

        Raises `ValueError` for NaN, labels that are not 0 ... C-1 and shapes that do not fit.
        """
        key = check_key(key, "ScaleMixtureClassifier.fit")
        if not (isinstance(data, tuple | list) and len(data) == 2):
            raise TypeError(f"`data` must be a pair (x, labels); got {type(data).__name__}.")
        x = as_points(data[0], "x", self.kernel.event_ndim)
        labels, num_classes = as_labels(data[1], len(x), self.num_classes)
        if self.method == "variational":
            report = fit_process(self, x, labels, num_classes, key=key, **run)
            return dataclasses.replace(self, process=report.model, report=report, regression=None)
        if run:
            raise TypeError(f"method='labels' does not train step by step and takes no {sorted(run)}; leave them out.")
        regression = fit_labels(self, x, labels, num_classes, key=key)
        return dataclasses.replace(self, regression=regression, process=None, report=None)

    def infer(self, observed: Any = None, *, prior: Any = None, key: PRNGKeyArray | None = None) -> dist.Distribution:
        """The classes at new points, a batch `(n_new,)` of NumPyro's `CategoricalLogits`; `.probs` is `(n_new, C)`.

        The probabilities are those of each point by itself; for what points have in common draw from `latent`.

        - `observed`: new points, as `x` in `fit`.
        - `key`: for the draws of the variational method, the same s for all points; "labels" needs none.
        """
        known, x = self._asked(observed, prior)
        if isinstance(known, ScaleMixtureNNGP):
            return dist.CategoricalLogits(jnp.asarray(log_largest_of_labels(known, x)))
        key = check_key(key, "ScaleMixtureClassifier.infer")
        with precision(64):
            log_probs = log_mean_softmax(known, jnp.asarray(x), self.num_predictive_draws, key)
        return dist.CategoricalLogits(to_caller(log_probs))

    def latent(self, observed: Any) -> dist.Distribution:
        """The law of f at new points, `(n_new, C)`: a multivariate t over points and classes, or its Gaussian limit.

        Holds C matrices of `(n_new, n_new)`; with "labels", one.
        """
        known, x = self._asked(observed, None)
        if isinstance(known, ScaleMixtureNNGP):
            return known.infer(x, observation_noise=False)
        with precision(64):
            law = latent_law(known, jnp.asarray(x))
        return SharedScaleStudentT(*to_caller(law))

    def scale_posterior(self) -> dist.Distribution:
        """The law of s given the labels: q(s), or the Delta that was learnt; with "labels" the exact law."""
        known = self._fitted(None)
        with precision(64):
            law = known.scale_posterior() if isinstance(known, ScaleMixtureNNGP) else known.scale.law()
        return law if isinstance(law, ScalePosterior) else to_caller(law)  # that one is for float64 programs

    def _fitted(self, prior: Any) -> SparseProcess | ScaleMixtureNNGP:
        if prior is not None:
            raise TypeError(
                "The prior is part of what was fitted. Leave `prior` out, and fit with another `scale_prior`."
            )
        known = self.process if self.method == "variational" else self.regression
        if known is None:
            raise ValueError(
                "This ScaleMixtureClassifier is not fitted. Call `.fit((x, labels), key=key)`, and use what it returns."
            )
        return known

    def _asked(self, observed: Any, prior: Any) -> tuple[SparseProcess | ScaleMixtureNNGP, np.ndarray]:
        known = self._fitted(prior)
        fitted: Any = known.inducing if isinstance(known, SparseProcess) else known.knowledge.x  # pyright: ignore
        return known, as_points(observed, "observed", self.kernel.event_ndim, fitted.shape[1:])
