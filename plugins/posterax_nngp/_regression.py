"""Regression by scale mixtures of neural-network Gaussian processes."""

from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray
from posterax import Estimator, Target, check_key
from posterax._precision import precision

from . import _regression_law as law
from ._data import check_data, check_memory, finite, observations, standardised, standardiser
from ._dense import MLPKernel
from ._inducing_points import greedy_inducing
from ._kernel import Kernel, as_inputs
from ._parameters import Hyper
from ._regression_fit import NoEvidenceError, choose, is_profiled, maximise
from ._regression_settings import check_settings, plain, remarks, to_caller, to_host, unbounded_evidence
from ._scale import ScalePosterior
from ._scale_prior import check_prior


class ScaleMixtureNNGP(Estimator):
    r"""Regression by a Gaussian process whose kernel has one random scale: $f \mid s \sim GP(0, s K)$, $s \sim H$.

    With an inverse gamma law H(a, b) it is a Student-t process with 2a degrees of freedom, with a point mass a Gaussian
    process, and any other positive law will do. The scale is integrated out: exactly for these two, else by quadrature.

    With tied noise $y \mid s \sim N(0, s (K + \epsilon I))$, with free noise $N(0, s K + \tau I)$. All inputs and
    outputs share s, whose posterior narrows as one over the root of the number of data: from some hundred on the
    predictions are those of a Gaussian process with s at its likeliest value. A shared scale does not weigh down
    outliers.

    - `kernel`: K, an `MLPKernel`, say. Its readout has unit variance, since s takes its place.
    - `scale_prior`: H; `dist.InverseGamma(a, b)`, `dist.Delta(v)`, `BurrXII(c, d)`, any law on positive numbers.
    - `noise`: $\epsilon$, relative to s (`noise_model` "tied"), or $\tau$, a variance of its own ("free").
    - `learn`: which of "kernel", "noise", "scale_prior" are set by maximum marginal likelihood; () for none. A
      point mass that is learnt is the Gaussian process with its scale by maximum likelihood, the baseline to beat.
    - `num_inducing`: None for exact inference, $O(n^3)$ time and $O(n^2)$ memory; else that many inducing points, for
      tied noise, $O(n M^2)$ and $O(n M)$. `log_evidence` is then a lower bound.
    - `standardise`: whether inputs and outputs are brought to mean 0 and standard deviation 1 first (each column). Then
      the prior and the noise speak of standardised outputs, predictions and evidence of the units given.
    - `method`: "auto", or "importance" for the paper's self-normalised importance sampling of s (tied noise), with
      `proposal` "likelihood", "mixture", or "prior" as in the paper, which collapses, and `num_draws`.
    - `max_steps`, `num_starts`: of L-BFGS on the evidence; starts after the first are random.
    - `candidates`: further kernels, of other depths and activations, say. After `screening_steps` of L-BFGS from where
      each stands, the kernel of largest evidence is kept and fitted to the end. See `networks`.

    Fitted fields: `report`, a dictionary: "log_evidence" in nats, "jitter" (relative, what had to be added to the Gram
    matrix), "notes" on the data, evaluations and starts. Everything is computed in float64.

    Source: Lee, Yun, Yang and Lee (2022), arXiv:2107.01408; closed form: Shah, Wilson and Ghahramani (2014),
    arXiv:1402.4306; inducing points: Titsias (2009).
    """

    kernel: Kernel = eqx.field(default_factory=MLPKernel)
    scale_prior: dist.Distribution = eqx.field(default_factory=lambda: dist.InverseGamma(2.0, 2.0))
    noise: float | Array = 0.1
    noise_model: Literal["tied", "free"] = eqx.field(static=True, default="tied")
    learn: tuple[str, ...] = eqx.field(static=True, default=("kernel", "noise"))
    num_inducing: int | None = eqx.field(static=True, default=None)
    standardise: bool = eqx.field(static=True, default=False)
    method: Literal["auto", "importance"] = eqx.field(static=True, default="auto")
    proposal: Literal["likelihood", "prior", "mixture"] = eqx.field(static=True, default="likelihood")
    num_draws: int = eqx.field(static=True, default=1000)
    max_steps: int = eqx.field(static=True, default=200)
    num_starts: int = eqx.field(static=True, default=1)
    candidates: tuple[Kernel, ...] = ()
    screening_steps: int = eqx.field(static=True, default=20)
    knowledge: law.Knowledge | None = None
    report: dict[str, Any] | None = None
    infers: ClassVar = "distribution"
    precision: ClassVar = 64

    def __check_init__(self):
        check_settings(self)

    def fit(self, data: Any, *, key: PRNGKeyArray) -> "ScaleMixtureNNGP":
        """A copy that has learnt what `learn` names from `data`, and knows these data.

        - `data`: inputs `(n, d)` (images for a `CNNKernel`) and outputs `(n,)` or `(n, m)`.
        - `key`: chooses random starts, and draws of the scale with importance sampling.

        Raises `ValueError` for data that are not finite or of other shapes; `MemoryError`, before anything is
        allocated, where exact inference does not fit. Warns where the evidence has not converged, and where copied rows
        have left it without a maximum.
        """
        return self._known(data, check_key(key, "ScaleMixtureNNGP.fit"), self.learn)

    def condition(self, data: Any, *, key: PRNGKeyArray | None = None) -> "ScaleMixtureNNGP":
        """A copy that knows `data`, its hyper-parameters as they are. It can be jitted and mapped."""
        return self._known(data, key, ())

    def _known(self, data: Any, key: Any, learn: tuple[str, ...]) -> "ScaleMixtureNNGP":
        x, y = check_data(data, self.kernel.event_ndim)
        traced = isinstance(x, Tracer) or isinstance(y, Tracer)
        if not traced:
            check_prior(self.scale_prior)
            if self.num_inducing is None:
                check_memory(len(x))
        tied, single, notes = self.noise_model == "tied", y.ndim == 1, observations(x, y)
        units = standardiser(x, y, self.standardise)
        with precision(None if traced else 64):
            hyper = self.hyper()
            x, y = standardised(x, y, units)
            record: dict[str, Any] = {"notes": notes}
            if learn and self.candidates:
                kernels = (self.kernel, *self.candidates)
                hyper, record["candidates"] = choose(
                    kernels, hyper, x, y, self._inducing, learn=learn, tied=tied, max_steps=self.screening_steps
                )
            inducing = self._inducing(hyper.kernel, x)
            if learn:
                hyper, found = maximise(
                    hyper, x, y, inducing, learn=learn, tied=tied, max_steps=self.max_steps,
                    num_starts=self.num_starts, key=key,
                )  # fmt: skip
                record |= found
            profiled = is_profiled(hyper, learn, tied)
            knowledge, hyper, said = law.learn(hyper, x, y, inducing, tied=tied, profiled=profiled)
            shift = y.size * jnp.mean(jnp.log(jnp.asarray(units["y_scale"])))  # evidence in the units given
            record |= {"log_evidence": said["log_evidence"] - shift, "jitter": said["jitter"]}
            if self.method == "importance":
                knowledge, record["importance"] = law.sampled(knowledge, hyper, y, self.proposal, self.num_draws, key)
            knowledge = eqx.tree_at(lambda k: k.units, knowledge, {**units, "single": single})
        if not traced:
            record = plain(record)
            if not np.isfinite(record["log_evidence"]):
                raise NoEvidenceError
            record["notes"] += remarks(record, self.scale_prior)
            knowledge, hyper = to_host(knowledge), to_host(hyper)
            if "noise" in learn:
                size = knowledge.state["quad"] / y.size if tied else 1.0  # the likeliest scale
                record["notes"] += unbounded_evidence(np.asarray(x), np.asarray(y), float(hyper.noise * size))
        fields = {"kernel": hyper.kernel, "noise": hyper.noise, "scale_prior": hyper.scale_prior}
        return self._replace(**fields, knowledge=knowledge, report=record)

    def infer(
        self,
        observed: Any = None,
        *,
        prior: dist.Distribution | None = None,
        key: PRNGKeyArray | None = None,
        observation_noise: bool = True,
        joint: bool = True,
    ) -> dist.Distribution:
        """The predictive law at new inputs.

        - `observed`: the inputs `(k, d)`.
        - `prior`: another law of the scale than the one fitted with; the same factor serves. Tied noise only.
        - `observation_noise`: whether of new observations, or else of the function itself.
        - `joint`: one law of all points, events `(k,)` or `(k, m)`, whose draws have one scale each; else the law of
          each point alone, a batch of that shape, which needs no covariance matrix.

        Raises `ValueError` before any data are known, and for inputs of another shape or not finite; `MemoryError`
        where a joint law does not fit.
        """
        del key
        known = self._knowledge()
        if observed is None:
            raise TypeError("`observed` must be the inputs (k, d) at which to predict.")
        x = observed if isinstance(observed, Tracer) else finite(np.asarray(observed), "observed")
        if x.ndim != 1 + self.kernel.event_ndim or x.shape[1:] != known.x.shape[1:]:
            raise ValueError(
                f"`observed` must have shape (k, {', '.join(map(str, known.x.shape[1:]))}); got {x.shape}."
            )
        if joint and not isinstance(x, Tracer):
            check_memory(
                len(x), f"The joint law of {len(x)} points", "Give `joint=False` for the law of each point alone"
            )
        if prior is not None:
            check_prior(prior)
            if self.noise_model == "free":
                raise ValueError("`prior` can be changed at call time for tied noise only; fit again with that prior.")
        traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((x, known, self.noise)))
        with precision(None if traced else 64):
            hyper = self.hyper(prior)
            x = jnp.asarray(x, jnp.result_type(float))
            tied, known = self.noise_model == "tied", known.widened()
            scale = law.scale_rule(hyper, known, tied, prior is not None)
            made = law.predict(hyper, known, scale, x, observation_noise, joint, tied)
        return made if traced else to_caller(made)

    def prior(self, x: Any, *, observation_noise: bool = False, joint: bool = True) -> dist.Distribution:
        """The law of the function, or of observations, at `x` before any data: events `(k,)`, one output.

        Units are the model's own. Arguments as for `infer`.
        """
        x = as_inputs(x, "x", self.kernel.event_ndim)
        with precision(64):
            hyper = self.hyper()
            made = law.prior(hyper, x, observation_noise, joint, self.noise_model == "tied")
        return to_caller(made)

    def target(self, data: Any, *, hyper_prior: dict[str, dist.Distribution] | None = None) -> Target:
        """The posterior of the hyper-parameters that `learn` names, s integrated out, for NUTS or any other sampler.

        - `data`: as for `fit`.
        - `hyper_prior`: laws of the hyper-parameters by name, "noise" or "kernel.weight_variance", say. Others are
          log-normal: their logarithms have the value they now stand at as mean, and standard deviation 1.

        The target's values are the hyper-parameters by name. Raises as `fit` does, and `ValueError` for unknown names.
        """
        from ._hyper import target

        return target(self, data, hyper_prior or {})

    def averaged(
        self, data: Any, draws: Any, observed: Any, *, observation_noise: bool = True, num: int = 100
    ) -> dist.Distribution:
        """The predictive law of each new point and output, averaged over draws of the hyper-parameters.

        - `data`, `draws`: those of `target`, and the `Draws` that a sampler made of it; weighted ones count by weight.
        - `observed`: new inputs `(k, d)`; `observation_noise` as for `infer`.
        - `num`: of evenly spaced draws that are used, each of which costs a factorisation.

        Returns a mixture, a batch of the shape of the outputs. Raises `ValueError` for draws without any weight.
        """
        from ._hyper import averaged

        return averaged(self, data, draws, observed, observation_noise, num)

    def scale_posterior(self) -> dist.Distribution:
        """The law of s given the data (standardised ones, with `standardise`): inverse gamma, or by quadrature."""
        known = self._knowledge()
        with precision(64):
            hyper = self.hyper()
            made = law.scale_law(hyper, known.widened(), self.noise_model == "tied")
        return made if isinstance(made, ScalePosterior) else to_caller(made)  # that one keeps float64

    def leave_one_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Log density of each row given all others `(n,)`, in nats, and its predictive mean, of the shape of y.

        Exact: the law of s is that given the other rows. Hyper-parameters are as fitted to all rows. Not for inducing
        points, where it raises `ValueError`.
        """
        known = self._knowledge()
        if self.num_inducing is not None:
            raise ValueError("`leave_one_out` is for exact inference: fit without `num_inducing`.")
        with precision(64):
            hyper = self.hyper()
            log_density, mean = law.leave_one_out(hyper, known.widened(), self.noise_model == "tied")
        return np.asarray(log_density), np.asarray(mean)

    def quantiles(self, observed: Any, q: Any, *, observation_noise: bool = True) -> np.ndarray:
        """Predictive quantiles at new inputs, `(*q, k)` or `(*q, k, m)`."""
        from ._quantiles import quantiles

        with precision(64):
            return quantiles(self.infer(observed, observation_noise=observation_noise, joint=False), q)

    def hyper(self, prior: dist.Distribution | None = None) -> Hyper:
        """The hyper-parameters as they stand, as arrays of the precision in force; `prior`: in place of the scale's."""
        return Hyper(self.kernel, self.noise, prior or self.scale_prior).widened()

    def _knowledge(self) -> law.Knowledge:
        if self.knowledge is None:
            raise ValueError(
                "This ScaleMixtureNNGP knows no data. Call `.fit((x, y), key=key)`, and use what it returns."
            )
        return self.knowledge

    def _inducing(self, kernel: Kernel, x: Array) -> Array | None:
        if self.num_inducing is None:
            return None
        rows = greedy_inducing(kernel, x, min(self.num_inducing, len(x)))
        return x[jnp.asarray(rows)]

    def _replace(self, **fields: Any) -> "ScaleMixtureNNGP":
        new = object.__new__(type(self))
        for name in self.__dataclass_fields__:
            object.__setattr__(new, name, fields.get(name, getattr(self, name)))
        return new
