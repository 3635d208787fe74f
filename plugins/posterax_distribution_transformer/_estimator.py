"""Distribution transformers: from a prior and data to the posterior, in one pass of a network."""

import dataclasses
import os
import warnings
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import optax
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray
from posterax import Checkpoint, Estimator, Plan, PosteraxWarning, check_key, train

from ._bijection import transformed
from ._mixture import Components, mixture_of
from ._network import TRUNKS, Network, make_network, read
from ._objective import ExpectedForwardKL, Simulations
from ._problem import InferenceProblem, Rows
from ._range import Outside, Range, figures_of
from ._spec import Encoded, Scales, Spec, spec_of
from ._tokens import Units, to_components

_LOOKED_AT = 16_384  # simulated problems, for units and ranges
_DEFAULT_PLAN = Plan()


class DistributionTransformer(Estimator):
    """Bayesian inference in one pass of a network: the prior is an input, and may change from call to call.

    Trained on draws of (prior, latent, data) from an `InferenceProblem`; `infer` then gives the posterior as a mixture
    of normals for any prior of the trained family and any data: in the sample space that the bijection of the problem
    chooses, real numbers for a positive latent's logarithm, say. It is amortised, not exact: right on average over the
    problems of the training. Outside of what it has seen it warns. `correct` weighs its draws by the true likelihood.

    - `num_components`: K of the posterior, for priors that are no mixtures. A mixture prior gives as many as it has.
    - `width`, `heads`, `depth`, `hidden`: of tokens, of attention, of layers, of the perceptron in each layer.
    - `encoder_depth`: layers in which the rows of data attend to each other first. The paper has none; they are wanted
      where rows speak together only, as pairs of (x, y) do of a length-scale.
    - `residual`: for mixture priors: the head tells what changes of each component, not the component anew, so that a
      token need not carry all numbers of its covariance. The paper has none; wanted in more than a few dimensions.
    - `diagonal`: components with diagonal covariances.
    - `trunk`: "transformer"; or "deepsets", without attention, the baseline that has the prior as features.
    - `prior_weight`: of the term of the loss that makes the same head tell the prior.
    - `num_steps`, `batch_size`, `learning_rate`: of Adam; the rate rises over a twentieth of the steps, then falls to 0
      as a cosine. Gradients are clipped at norm 1.
    - `drop_sources`: how often each source is left out in training; more than 0 where sources may be missing later.
    - `max_skipped`: how many steps may be skipped, because of simulations or losses that are not finite, before
      training fails.

    Fitted fields: `network`, `spec`, `scales`, `range`; `report`, a dictionary: "loss" in nats (mean of the last
    twentieth of the steps), "num_skipped", "num_steps", "num_weights", "result_code", "history".

    Source: Whittle, Ziomek, Rawling and Osborne (2025), arXiv:2502.02463. Unlike there: layers are normalised before,
    not after; weights are a softmax; covariances are told by what whitens them; rows may be missing.
    """

    num_components: int = eqx.field(static=True, default=5)
    width: int = eqx.field(static=True, default=32)
    heads: int = eqx.field(static=True, default=4)
    depth: int = eqx.field(static=True, default=3)
    hidden: int = eqx.field(static=True, default=64)
    encoder_depth: int = eqx.field(static=True, default=0)
    residual: bool = eqx.field(static=True, default=False)
    diagonal: bool = eqx.field(static=True, default=False)
    trunk: Literal["transformer", "deepsets"] = eqx.field(static=True, default="transformer")
    prior_weight: float = eqx.field(static=True, default=1.0)
    num_steps: int = eqx.field(static=True, default=4000)
    batch_size: int = eqx.field(static=True, default=256)
    learning_rate: float = eqx.field(static=True, default=2e-3)
    drop_sources: float = eqx.field(static=True, default=0.0)
    max_skipped: int = eqx.field(static=True, default=0)
    network: Network | None = None
    spec: Spec | None = None
    scales: Scales | None = None
    range: Range | None = None
    report: dict[str, Any] | None = None
    infers: ClassVar = "distribution"

    def __check_init__(self):
        sizes = ("num_components", "width", "heads", "depth", "hidden", "num_steps", "batch_size")
        for name, least in (*((size, 1) for size in sizes), ("encoder_depth", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"`{name}` must be an integer, {least} or more; got {value!r}.")
        if self.encoder_depth and self.trunk == "deepsets":
            raise ValueError('`encoder_depth` is of attention, which the trunk "deepsets" does without; it must be 0.')
        if self.width % self.heads:
            raise ValueError(f"`width` must be a multiple of `heads`; got {self.width} and {self.heads}.")
        if self.trunk not in TRUNKS:
            raise ValueError(f"`trunk` must be one of {', '.join(TRUNKS)}; got {self.trunk!r}.")
        if not self.prior_weight >= 0:
            raise ValueError(f"`prior_weight` must be 0 or more; got {self.prior_weight!r}.")
        if not 0 <= self.drop_sources < 1:
            raise ValueError(f"`drop_sources` must be at least 0 and below 1; got {self.drop_sources!r}.")
        if not self.learning_rate > 0:
            raise ValueError(f"`learning_rate` must be positive; got {self.learning_rate!r}.")

    def fit(
        self,
        data: InferenceProblem,
        *,
        key: PRNGKeyArray,
        plan: Plan = _DEFAULT_PLAN,
        checkpoint: str | os.PathLike | Checkpoint | None = None,
        progress: bool | None = None,
    ) -> "DistributionTransformer":
        """A copy that has learned to invert a problem.

        - `data`: the `InferenceProblem`; it is simulated anew at each step, within the compiled step.
        - `plan`, `checkpoint`, `progress`: as in `posterax.train`. A killed training goes on from its checkpoint.

        Raises `TrainingError` where more than `max_skipped` steps were not finite, and `ValueError` or `TypeError` for
        a problem that cannot be learned.
        """
        if not isinstance(data, InferenceProblem):
            raise TypeError(f"`data` must be an InferenceProblem; got {type(data).__name__}.")
        keys = jr.split(check_key(key, "DistributionTransformer.fit"), 4)
        spec = spec_of(data, self.num_components, self.diagonal, key=keys[0])
        scales, seen = _survey(data, spec, keys[1])
        network = self._network(spec, keys[2])
        objective = ExpectedForwardKL(spec, self.prior_weight)
        batches = Simulations(data, spec, scales, self.batch_size, self.drop_sources)
        trained = train(
            network, objective, batches, num_steps=self.num_steps, key=keys[3], optimiser=self._optimiser(),
            max_skipped=self.max_skipped, plan=plan, checkpoint=checkpoint, progress=progress,
        )  # fmt: skip
        last = trained.metrics["posterior"][-max(1, self.num_steps // 20) :]
        report = {
            "loss": float(np.nanmean(last) + np.log(scales.latent.size).sum()),
            "num_skipped": trained.num_skipped,
            "num_steps": len(trained.losses),
            "num_weights": sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array))),
            "result_code": trained.result_code,
            "history": trained.history,
        }
        return dataclasses.replace(self, network=trained.model, spec=spec, scales=scales, range=seen, report=report)

    def infer(
        self, observed: Any = None, *, prior: Any = None, key: PRNGKeyArray | None = None, check: bool = True
    ) -> dist.Distribution:
        """The posterior: NumPyro's mixture of normals, brought to the space of the latent.

        - `observed`: data as the simulator gives them; sources and rows may be missing. Without any the prior comes
          back.
        - `prior`: a prior of the trained family. One with a batch shape, and data with that shape in front, are as many
          problems, answered together.
        - `key`: not needed.
        - `check`: warn where prior or data are outside of what training has seen.

        It can be jitted and mapped; then nothing is checked, and a posterior costs what the network does.

        Raises `ValueError` or `TypeError` for a prior that is none of the family or no distribution, unknown sources,
        wrong shapes, and values that are not finite.
        """
        del key
        spec, given = self._given(observed, prior)
        law, notes = _answer(self.learned(), self.seen(), prior, given)
        if not isinstance(notes.figures, Tracer):
            if not np.all(notes.sound):
                spec.explain(prior, given)
            if np.all(notes.empty) and isinstance(prior, dist.Distribution):
                return prior
            if check:
                self._warn(notes)
        return transformed(law, spec.bijection, spec.scalar)

    def outside(self, observed: Any = None, *, prior: Any) -> Outside:
        """Which figures of prior and data, named in `range.names`, are outside of what training has seen."""
        _, given = self._given(observed, prior)
        return _answer(self.learned(), self.seen(), prior, given)[1].outside

    def is_outside(self, encoded: Encoded) -> Array:
        """Whether encoded problems are outside of what training has seen, `(...)`."""
        _, spec, scales = self.learned()
        return self.seen()(figures_of(spec, scales, encoded)[1]).anywhere

    def prior_as_told(self, prior: Any) -> dist.Distribution:
        """The mixture that the head makes of the embedded prior itself: how well it has been understood."""
        spec, _ = self._given(None, prior)
        return transformed(_told(self.learned(), prior), spec.bijection, spec.scalar)

    def _given(self, observed: Any, prior: Any) -> tuple[Spec, dict[str, Rows]]:
        spec = self.learned()[1]
        if prior is None:
            raise ValueError("`prior` is needed: the network has no prior of its own. Pass infer(observed, prior=...).")
        lead = spec.check_prior(prior)
        return spec, spec.check_observed(observed, lead)

    def learned(self) -> tuple[Network, Spec, Scales]:
        """Network, what it expects, and units; raises `ValueError` where nothing has been learned."""
        if self.network is None or self.spec is None or self.scales is None:
            raise ValueError("This DistributionTransformer has not been trained: call `fit(problem, key=...)` first.")
        return self.network, self.spec, self.scales

    def seen(self) -> Range:
        """What prior and data looked like in training."""
        assert self.range is not None  # fitted together with the network
        return self.range

    def _warn(self, notes: "Notes") -> None:
        if words := self.seen().words(notes.outside, notes.figures):
            warnings.warn(
                f"Outside of what training has seen, where the answer is a guess: {words}. `correct` weighs it by the "
                "true likelihood and tells how far it is off.", PosteraxWarning, stacklevel=3,
            )  # fmt: skip

    def _network(self, spec: Spec, key: PRNGKeyArray) -> Network:
        if self.residual and not spec.is_mixture:
            raise ValueError(
                f"`residual` is for mixture priors, whose components it changes; got {spec.family} priors."
            )
        below = 0 if self.diagonal else spec.size * (spec.size - 1) // 2
        out = 1 + 2 * spec.size + below
        return make_network(
            out if spec.is_mixture else spec.num_parameters, [2 * columns for _, columns, _, _ in spec.sources],
            0 if spec.is_mixture else spec.num_components, out,
            width=self.width, heads=self.heads, depth=self.depth, hidden=self.hidden, trunk=self.trunk,
            encoder_depth=self.encoder_depth, residual=self.residual, key=key,
        )  # fmt: skip

    def _optimiser(self) -> optax.GradientTransformation:
        warm = max(1, self.num_steps // 20)
        rate = optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, warm, max(self.num_steps, warm + 1))
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def _survey(problem: InferenceProblem, spec: Spec, key: Any) -> tuple[Scales, Range]:
    """Units and ranges of simulated problems."""

    @eqx.filter_jit
    def drawn(problem, keys):
        def one(key):
            prior, latent, observed = problem.draw(key=key)
            return spec.encode(prior, observed), spec.real(latent)

        return jax.vmap(one)(keys)

    encoded, latent = drawn(problem, jr.split(key, _LOOKED_AT))
    fine = np.asarray(np.isfinite(np.asarray(latent)).all(axis=-1), bool).reshape(-1)
    for leaf in jax.tree.leaves((encoded.values, encoded.prior)):
        fine &= ~np.isnan(np.asarray(leaf)).reshape(len(fine), -1).any(-1)
    if fine.sum() < 0.5 * len(fine):
        raise ValueError(
            f"{len(fine) - fine.sum()} of {len(fine)} simulated problems are not finite. Mend `prior`, `latent` or "
            "`simulate` of the problem; a few such are counted and skipped in training (`max_skipped`)."
        )
    encoded, latent = jax.tree.map(lambda leaf: leaf[fine], (encoded, latent))
    sources = tuple(
        Units.of(values.reshape(-1, values.shape[-1]), there.reshape(-1))
        for values, there in zip(encoded.values, encoded.present, strict=True)
    )
    parameters = None if isinstance(encoded.prior, Components) else Units.of(encoded.prior)
    scales = Scales(Units.of(latent), parameters, sources)
    names: list[tuple[str, ...]] = []

    @eqx.filter_jit
    def figures(scales, encoded):
        found = figures_of(spec, scales, encoded)
        names.append(found[0])
        return found[1]

    rows = np.asarray(figures(scales, encoded))
    return scales, Range.of(names[0], rows)


class Notes(NamedTuple):
    """What is to be said of prior and data, one for each problem.

    - `sound`: all numbers are finite and weights sum to 1. `empty`: nothing was observed.
    - `outside`, `figures`: see `Range`.
    """

    sound: Array
    empty: Array
    outside: Outside
    figures: Array


@eqx.filter_jit
def _answer(learned: tuple[Network, Spec, Scales], seen: Range, prior: Any, given: dict[str, Rows]):
    """The mixture of real numbers, and notes."""
    _, spec, scales = learned
    encoded = spec.encode(prior, given)
    figures = figures_of(spec, scales, encoded)[1]
    empty = ~jnp.stack([there.any(-1) for there in encoded.present]).any(0)
    notes = Notes(encoded.sound(), empty, seen(figures), figures)
    return _law(spec, _mapped(lambda each: posterior_parts(learned, each), encoded, spec)), notes


def posterior_parts(learned: tuple[Network, Spec, Scales], encoded: Encoded) -> Components:
    """The posterior of one encoded problem, in the real numbers behind the latent; its prior where nothing was seen."""
    told, found = _told_and_found(learned, encoded)
    unseen = encoded.prior if isinstance(encoded.prior, Components) else told
    some = jnp.stack([there.any() for there in encoded.present]).any()
    return jax.tree.map(lambda a, b: jnp.where(some, a, b), found, unseen)


def _told_and_found(learned: tuple[Network, Spec, Scales], encoded: Encoded) -> tuple[Components, Components]:
    """What the head says of one problem's prior, and of its posterior."""
    network, spec, scales = learned
    tokens = scales.tokens(spec, encoded)
    before, after = (to_components(read(said, tokens.live, spec.size), scales.latent) for said in network(tokens))
    return before, after


@eqx.filter_jit
def _told(learned: tuple[Network, Spec, Scales], prior: Any):
    spec = learned[1]
    return _law(spec, _mapped(lambda each: _told_and_found(learned, each)[0], spec.encode(prior, {}), spec))


def _mapped(one: Any, encoded: Encoded, spec: Spec) -> Any:
    """`one` of each problem, whatever the batch shape."""
    lead = spec.lead(encoded.prior)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[len(lead) :]), encoded)
    return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), jax.vmap(one)(flat))


def _law(spec: Spec, parts: Components) -> dist.MixtureSameFamily:
    return mixture_of(parts, scalar=spec.scalar, diagonal=spec.diagonal)
