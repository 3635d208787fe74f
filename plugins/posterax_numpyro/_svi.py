"""Stochastic variational inference with NumPyro's automatic guides, trained by posterax's loop."""

import functools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro
import numpyro.distributions as dist
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree
from numpyro.infer import SVI as NumpyroSVI
from numpyro.infer import Trace_ELBO, init_to_value
from numpyro.infer.autoguide import AutoBNAFNormal, AutoContinuous, AutoDAIS, AutoIAFNormal, AutoMultivariateNormal
from posterax import Estimator, JointDistribution, Objective, Target, TargetError, Trained, check_key, train

_SITE = "position"


class SVI(Estimator):
    """The member of a guide's family nearest to a target in Kullback-Leibler divergence KL(q || p).

    The guide covers the target's unconstrained position as one vector, so any target will do, and `infer` gives a joint
    distribution of the named constrained values. An approximation: reweight it to see how good it is.

    - `guide`: an automatic guide of NumPyro's over continuous values: `AutoMultivariateNormal`, `AutoDiagonalNormal`,
      `AutoLowRankMultivariateNormal`, `AutoLaplaceApproximation`, `AutoIAFNormal`. Not those whose density cannot be
      evaluated (`AutoBNAFNormal`, `AutoDAIS`): nobody could tell how good they are.
    - `num_steps`: optimisation steps.
    - `num_particles`: draws in each estimate of the evidence lower bound.
    - `optimiser`: from optax; by default Adam with b2=0.95 and a learning rate that falls from 0.03 to 0.

    Fitted fields: `params` (the guide's, unconstrained), `target`, `report` (a `Trained`; its losses are negative
    evidence lower bounds, in nats; for `AutoLaplaceApproximation`, which climbs to the mode, negative log densities).

    Source: Kucukelbir et al. (2017), JMLR 18(14); NumPyro's `infer.SVI` and `infer.autoguide`.
    """

    guide: type[AutoContinuous] = eqx.field(static=True, default=AutoMultivariateNormal)
    num_steps: int = 3000
    num_particles: int = 8
    optimiser: optax.GradientTransformation | None = None
    params: dict[str, Array] | None = None
    target: Target | None = None
    report: Trained | None = None
    infers: ClassVar = "distribution"

    def __check_init__(self):
        if not (isinstance(self.guide, type) and issubclass(self.guide, AutoContinuous)):
            raise TypeError(
                f"`guide` must be a class of numpyro.infer.autoguide for continuous values; got {self.guide!r}. "
                "For instance AutoMultivariateNormal, the class itself."
            )
        if issubclass(self.guide, (AutoBNAFNormal, AutoDAIS)):
            raise TypeError(
                f"`guide` {self.guide.__name__} has no density that can be evaluated at a given point, which "
                "`log_prob` and reweighting need. AutoIAFNormal is as flexible and has one."
            )
        for name in ("num_steps", "num_particles"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1; got {getattr(self, name)}.")

    def fit(self, data: Target, *, key, **run: Any) -> "SVI":
        """A copy fitted to the target `data`.

        - `**run`: `plan`, `checkpoint`, `progress`, `throw`, `max_skipped` of `posterax.train`. A plan of 64 bits
          evaluates guide and density in float64; the guide's parameters keep the precision that JAX is set to.
        """
        if not isinstance(data, Target):
            raise TypeError(
                f"SVI fits a Target; got {type(data).__name__}. Make one with `Target.from_numpyro(model, ...)`."
            )
        key_start, key_train = jr.split(check_key(key, "SVI.fit"))
        start, finite = _start(data, key_start)
        if not finite:
            raise TargetError(
                "No position with a finite log density was found for the guide to begin at, in 100 random ones. "
                "`target.check(key=key)` may tell why."
            )
        params = _first_params(self.guide, data, start)
        optimiser = _default_optimiser(self.num_steps) if self.optimiser is None else self.optimiser
        objective = NegativeELBO(self.guide, self.num_particles)
        report = train(params, objective, data, num_steps=self.num_steps, optimiser=optimiser, key=key_train, **run)
        return SVI(self.guide, self.num_steps, self.num_particles, self.optimiser, report.model, data, report)

    def infer(self, observed: Any = None, *, prior: Any = None, key=None) -> JointDistribution:
        """The fitted joint distribution of the target's values. The data are the target's; nothing else is taken."""
        del key
        if observed is not None or prior is not None:
            raise TypeError(
                "SVI knows only the data and prior of the target it was fitted to; leave `observed` and `prior` out, "
                "and fit another target for other data."
            )
        if self.params is None or self.target is None:
            raise ValueError("This SVI is not fitted. Call `.fit(target, key=key)`, and use what it returns.")
        if issubclass(self.guide, AutoIAFNormal):
            return JointDistribution(_Flow(self.guide, self.target, self.params), self.target)
        return JointDistribution(_posterior(self.guide, self.target, self.params), self.target)


class NegativeELBO(Objective):
    """The negative evidence lower bound of an automatic guide, estimated with fresh draws at every step.

    - `guide`: as in `SVI`; `num_particles`: draws in each estimate.
    """

    guide: type[AutoContinuous] = eqx.field(static=True, default=AutoMultivariateNormal)
    num_particles: int = 8

    def loss(self, model, batch, state, *, key):
        elbo = Trace_ELBO(self.num_particles)
        svi, guide = _numpyro_svi(self.guide, batch, None, elbo)
        model = jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(float)), model)
        params = svi.constrain_fn(model)  # pyright: ignore[reportOptionalCall]
        return jnp.asarray(elbo.loss(key, params, svi.model, guide)), (state, {})


@functools.cache
def _default_optimiser(num_steps: int) -> optax.GradientTransformation:
    # Far from the target gradients are huge. Adam with its usual memory of a thousand squared gradients then crawls for
    # the rest of the run: on the Nile it ended 300 nats short; a memory of twenty ended 0.03 nats from the evidence.
    return optax.adam(optax.cosine_decay_schedule(0.03, num_steps), b2=0.95)


def _numpyro_svi(guide_class, target: Target, start: PyTree | None, elbo: Trace_ELBO):
    """NumPyro's SVI object, initialised: made afresh in every trace, for what it holds belongs to that trace."""
    like = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), target.position_like())
    flat, unravel = ravel_pytree(like if start is None else start)

    def model():
        position = numpyro.sample(_SITE, dist.ImproperUniform(dist.constraints.real_vector, (), flat.shape))
        numpyro.factor("log_density", target.log_density(unravel(jnp.asarray(position))))

    guide = guide_class(model, init_loc_fn=init_to_value(values={_SITE: flat}))
    svi = NumpyroSVI(model, guide, optax.identity(), elbo)
    svi.first = svi.init(jr.key(0))  # pyright: ignore[reportAttributeAccessIssue]
    return svi, guide


@eqx.filter_jit
def _first_params(guide_class, target: Target, start: PyTree) -> dict[str, Array]:
    svi, _ = _numpyro_svi(guide_class, target, start, Trace_ELBO())
    return svi.optim.get_params(svi.first.optim_state)  # pyright: ignore[reportAttributeAccessIssue]


def _distribution(guide_class, target: Target, params: dict[str, Array]) -> dist.Distribution:
    svi, guide = _numpyro_svi(guide_class, target, None, Trace_ELBO())
    posterior = guide.get_posterior(svi.constrain_fn(params))  # pyright: ignore[reportOptionalCall]
    return posterior.to_event(1 - posterior.event_dim)  # AutoDiagonalNormal's coordinates are a batch to NumPyro


_posterior = eqx.filter_jit(_distribution)


class _Flow(eqx.Module):
    """A flow's distribution, made afresh in every trace: it hides its network in a closure, where no PyTree can go."""

    guide: type[AutoContinuous] = eqx.field(static=True)
    target: Target
    params: dict[str, Array]

    def sample(self, key, sample_shape=()):
        return _distribution(self.guide, self.target, self.params).sample(key, sample_shape)

    def log_prob(self, value):
        return _distribution(self.guide, self.target, self.params).log_prob(value)


@eqx.filter_jit
def _start(target: Target, key):
    """A position where the log density is finite, and whether one was found in 100 tries."""

    def propose(i):
        position = target.initial(key=jr.fold_in(key, i))
        return i + 1, position, jnp.isfinite(target.log_density(position))

    first = jax.tree.map(jnp.zeros_like, jax.eval_shape(propose, 0))
    found = jax.lax.while_loop(lambda c: ~c[2] & (c[0] < 100), lambda c: propose(c[0]), first)
    return found[1], found[2]
