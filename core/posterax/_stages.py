"""The stages: each keeps the distribution that a weighted population targets, or changes it with the right weight."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from scipy.special import logsumexp

from . import weights
from ._draws import Draws
from ._errors import PipelineError
from ._estimator import Estimator
from ._identity import component_name
from ._keys import describe_key, numbered
from ._pipeline import Run, Stage
from ._precision import precision
from ._sampler import Sampler as SamplerBase
from ._target import Target

_NOT_KNOWN = "These draws do not know the density they target; `{}` needs it. Make them with `Draw` or `sample`."


class Infer(Stage):
    """Ask an estimator: gives the distribution that it infers from `observed`.

    - `estimator`: a fitted `Estimator`.
    - `observed`: the data, as its `infer` takes them.
    - `prior`: another prior, where the estimator takes one.
    """

    estimator: Estimator
    observed: Any = None
    prior: Any = None
    name: str | None = eqx.field(default=None, kw_only=True)
    takes: ClassVar[tuple[str, ...]] = ("nothing",)

    @property
    def gives(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the estimator says it infers."""
        return self.estimator.infers

    def __call__(self, value, run: Run, *, key: PRNGKeyArray):
        return self.estimator.infer(self.observed, prior=self.prior, key=key)


class Draw(Stage):
    """Draw from a distribution: gives unweighted draws that target it, with their exact log density.

    - `num_draws`: draws in each of
    - `num_chains`: independent populations.
    - `variable`: the name of the values where the distribution is one of a single array.
    """

    num_draws: int
    num_chains: int = 1
    variable: str = "x"
    name: str | None = eqx.field(default=None, kw_only=True)
    takes: ClassVar[tuple[str, ...]] = ("distribution",)
    gives: ClassVar[str] = "draws"

    def __check_init__(self):
        if self.num_draws < 1 or self.num_chains < 1:
            raise ValueError(
                f"`num_draws` and `num_chains` must be at least 1; got {self.num_draws}, {self.num_chains}."
            )

    def __call__(self, value, run: Run, *, key: PRNGKeyArray) -> Draws:
        shape = (self.num_chains, self.num_draws)
        if getattr(value, "batch_shape", ()):
            raise PipelineError(
                f"`Draw` takes one distribution; got a batch of shape {value.batch_shape}. Infer one problem at a time."
            )
        sampled = value.sample(key, shape)
        log_density = np.asarray(value.log_prob(sampled))
        values = sampled if isinstance(sampled, dict) else {self.variable: sampled}
        target = getattr(value, "target", None)
        return Draws(
            values={name: np.asarray(leaf) for name, leaf in values.items()},
            stats={},
            log_density=log_density,
            log_evidence=np.zeros(self.num_chains, log_density.dtype),
            **({} if target is None else {"labels": target.labels}),
        ).recorded("draw", distribution=type(value).__name__, key=describe_key(key))


class Reweight(Stage):
    """Aim the draws at another density: multiplies weights by its ratio to the one they targeted before.

    Weighted means are then those of `target`, as far as the draws cover it; ESS and Pareto k-hat, recorded in the
    result's history, tell how far. The log evidence of `target` follows where that of the draws was known.

    - `target`: a `Target` with the names of the draws.
    """

    target: Target
    name: str | None = eqx.field(default=None, kw_only=True)
    takes: ClassVar[tuple[str, ...]] = ("draws",)
    gives: ClassVar[str] = "draws"

    def __call__(self, value: Draws, run: Run, *, key: PRNGKeyArray) -> Draws:
        if value.log_density is None:
            raise PipelineError(_NOT_KNOWN.format("Reweight"))
        log_density, derived = _evaluate(self.target, latent_values(self.target, value))
        with np.errstate(invalid="ignore"):
            change = np.asarray(log_density, dtype=float) - np.asarray(value.log_density, dtype=float)
        # A density of zero before and after is a draw that cannot be; its weight is zero, not NaN.
        change = np.where(np.isneginf(log_density), -np.inf, change)
        if np.isnan(change).any():
            raise PipelineError(
                f"{int(np.isnan(change).sum())} of {change.size} draws have a density that is NaN, under `target` or "
                "where they come from. `target.check(key=key)` may tell why."
            )
        before = np.zeros(value.shape) if value.log_weights is None else np.asarray(value.log_weights, dtype=float)
        log_weights = before + change
        evidence = value.log_evidence
        if evidence is not None:
            evidence = evidence + logsumexp(log_weights, axis=1) - logsumexp(before, axis=1)
        draws = value.replace(
            values={**value.values, **{name: np.asarray(leaf) for name, leaf in derived.items()}},
            log_weights=log_weights,
            log_density=np.asarray(log_density),
            log_evidence=evidence,
            labels=self.target.labels,
        )
        figures = {"ess": draws.effective_sample_size(), "pareto_k": draws.pareto_k()}
        return draws.recorded(
            "reweight", **{name: round(x, 4) if np.isfinite(x) else None for name, x in figures.items()}
        )


class Resample(Stage):
    """Make weights equal by copying draws in proportion to them, each population within itself.

    - `when`: `Always()`, or `EssBelow(0.5)`: only where the effective sample size is below that share of the draws.
    - `scheme`: a resampler of `posterax.weights`.
    - `num_draws`: draws in each population afterwards; by default as many as before.
    """

    when: "Always | EssBelow" = eqx.field(default_factory=lambda: Always())
    scheme: weights.AbstractResampler = eqx.field(default_factory=weights.Systematic)
    num_draws: int | None = None
    name: str | None = eqx.field(default=None, kw_only=True)
    takes: ClassVar[tuple[str, ...]] = ("draws",)
    gives: ClassVar[str] = "draws"

    def __check_init__(self):
        if not isinstance(self.when, (Always, EssBelow)):
            raise TypeError(
                f"`when` must be Always() or EssBelow(share); got {self.when!r}. Functions could be neither compared "
                "nor saved."
            )

    def __call__(self, value: Draws, run: Run, *, key: PRNGKeyArray) -> Draws:
        share = value.effective_sample_size() / (value.num_chains * value.num_draws)
        if value.log_weights is None or not self.when.applies(share):
            return value.recorded("resample", done=False, ess_share=round(share, 4))
        size = value.num_draws if self.num_draws is None else self.num_draws
        keys = numbered(key, value.num_chains)
        chosen = np.asarray(
            jax.vmap(lambda lw, k: self.scheme(lw, key=k, num=size))(jnp.asarray(value.log_weights), keys)
        )
        rows = np.arange(value.num_chains)[:, None]
        if (chosen < 0).any():
            dead = int((chosen < 0).any(axis=1).sum())
            raise PipelineError(
                f"{dead} of {value.num_chains} populations have no draw of positive weight "
                "(or a weight that is NaN): there is nothing to resample from. Look at where the draws come from."
            )
        draws = value.replace(
            values={name: leaf[rows, chosen] for name, leaf in value.values.items()},
            stats={},
            log_weights=None,
            log_density=None if value.log_density is None else value.log_density[rows, chosen],
            dependent=True,
        )
        return draws.recorded(
            "resample", done=True, scheme=type(self.scheme).__name__, ess_share=round(share, 4), key=describe_key(key)
        )


class Move(Stage):
    """Move each draw by some transitions of a sampler that leaves `target` invariant; weights stay as they are.

    - `sampler`: a frozen one, without warm-up: `posterax.warm_up(sampler, target, key=key)` gives it.
    - `target`: what the draws target.
    - `steps`: transitions of each draw.
    - `whiten`: make them in the space where the draws that come in have mean 0 and covariance 1. A fixed step size
      serves there, `NUTS(num_warmup=0, step_size=0.5)` say, and nothing need be warmed up. That the draws choose the
      space biases them by order one over their number.

    Raises `PipelineError` for a sampler that still adapts: its transitions would not keep the distribution.
    """

    sampler: SamplerBase
    target: Target
    steps: int = 1
    whiten: bool = eqx.field(default=False, kw_only=True)
    name: str | None = eqx.field(default=None, kw_only=True)
    takes: ClassVar[tuple[str, ...]] = ("draws",)
    gives: ClassVar[str] = "draws"

    def __check_init__(self):
        if not isinstance(self.sampler, SamplerBase):
            raise PipelineError(f"`sampler` of Move must be a Sampler; got {type(self.sampler).__name__}.")
        if self.sampler.num_warmup:
            raise PipelineError(
                f"`sampler` of Move must be frozen; {type(self.sampler).__name__} adapts for {self.sampler.num_warmup} "
                "steps, during which it does not keep the target. Freeze it first: "
                "`posterax.warm_up(sampler, target, key=key)`."
            )
        if self.steps < 1:
            raise ValueError(f"`steps` must be at least 1; got {self.steps}.")

    def __call__(self, value: Draws, run: Run, *, key: PRNGKeyArray) -> Draws:
        from ._move import move
        from ._sample import merged

        run = run._replace(plan=merged(run.plan, self.sampler))
        with precision(run.plan.precision):
            values, log_density, stats = move(
                self.sampler, self.target, value, self.steps, run, whiten=self.whiten, key=key
            )
        return value.replace(values=values, stats=stats, log_density=log_density, labels=self.target.labels).recorded(
            "move", component=component_name(self.sampler), steps=self.steps, key=describe_key(key),
            **({"whitened": True} if self.whiten else {}),
        )  # fmt: skip


class Sample(Stage):
    """Run Markov chains: gives unweighted draws, started at random or from the draws that come in.

    - `sampler`, `target`, `num_draws`, `num_chains`: as in `posterax.sample`. Incoming draws choose the starts, in
      proportion to their weights.
    """

    sampler: Any
    target: Any
    num_draws: int | None = None
    num_chains: int = 4
    name: str | None = eqx.field(default=None, kw_only=True)
    takes: ClassVar[tuple[str, ...]] = ("nothing", "draws")
    gives: ClassVar[str] = "draws"

    def __call__(self, value: Draws | None, run: Run, *, key: PRNGKeyArray) -> Draws:
        from ._keys import named
        from ._sample import sample

        init = None
        if value is not None:
            chosen = value.resample(self.num_chains, key=named(key, "starts"))
            init = {name: leaf[0] for name, leaf in latent_values(self.target, chosen).items()}
        draws = sample(
            self.sampler, self.target, num_draws=self.num_draws, num_chains=self.num_chains, key=key, init=init,
            plan=run.plan, checkpoint=run.checkpoint, progress=run.progress,
        )  # fmt: skip
        return draws if value is None else draws.replace(history=(*value.history, *draws.history))


class Always(eqx.Module):
    """Resample every time."""

    def applies(self, share: float) -> bool:
        """Always true."""
        return True


class EssBelow(eqx.Module):
    """Resample where the effective sample size is below `share` of the number of draws."""

    share: float

    def __check_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"`share` must be in (0, 1]; got {self.share!r}.")

    def applies(self, share: float) -> bool:
        """Whether this share calls for resampling."""
        return share < self.share


def latent_values(target: Target, draws: Draws) -> dict[str, np.ndarray]:
    """The draws' values of the target's latents. Raises `PipelineError` where some are missing or of another shape."""
    latent = target.structure.latent
    if missing := sorted(set(latent) - set(draws.values)):
        raise PipelineError(
            f"`target` has the latents {sorted(latent)}; the draws lack {missing}: they have {sorted(draws.values)}. "
            "A distribution of one array is named by `Draw(..., variable=...)`."
        )
    for name, shape in latent.items():
        if draws.values[name].shape[2:] != shape:
            raise PipelineError(
                f"{name!r} has shape {shape} in `target`; in the draws, {draws.values[name].shape[2:]}."
            )
    return {name: draws.values[name] for name in latent}


@eqx.filter_jit
def _evaluate(target, values):
    def one(values):
        terms = target.density.terms(target.unconstrain(values))
        return terms.log_joint, terms.derived

    return jax.vmap(jax.vmap(one))(values)
