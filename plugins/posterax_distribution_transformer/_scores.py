"""How far a trained estimator is from exact answers: the figures of cards, tests and benchmarks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from ._algebra import mixture_moments
from ._estimator import DistributionTransformer, posterior_parts
from ._experiments import LengthScale, LinearGaussian, NormalVariance, QuantumParameter
from ._fusion import BearingRange
from ._grid import GridPosterior, grid_posterior
from ._mixture import Components, components_of, mixture_of

_CHUNK = 500


class Score(NamedTuple):
    """Of fresh problems, in nats, `(problems,)` each.

    - `kl`: KL(exact || inferred). `best_normal`: of the best single normal, likewise.
    - `gap`: negative log density of the true latent, less that under the exact posterior.
    """

    kl: np.ndarray
    gap: np.ndarray
    best_normal: np.ndarray

    def card(self) -> dict[str, float]:
        """Mean, median, 95 % quantile of the divergence; the mean gap with its standard error."""
        return {
            "problems": len(self.kl),
            "kl_mean": _round(self.kl.mean()),
            "kl_mean_standard_error": _round(self.kl.std() / np.sqrt(len(self.kl))),
            "kl_median": _round(np.median(self.kl)),
            "kl_p95": _round(np.quantile(self.kl, 0.95)),
            "nll_gap": _round(self.gap.mean()),
            "nll_gap_standard_error": _round(self.gap.std() / np.sqrt(len(self.gap))),
            "best_normal_kl_mean": _round(self.best_normal.mean()),
        }


def _round(x: float) -> float:
    return float(f"{x:.4g}")


def score(fitted: DistributionTransformer, experiment: Any, num: int, *, key: Any) -> Score:
    """Against the exact posterior, of `num` fresh problems of an experiment.

    On grids of the real number behind a latent on the line, or of the plane; for `LinearGaussian` in more dimensions
    by draws from the exact posterior, paired with the truth.
    """
    shared = experiment.outcome_table(jax.nn.sigmoid(_LOGITS)) if isinstance(experiment, QuantumParameter) else None
    keys = jr.split(key, num)
    found = [_chunk(fitted.learned(), experiment, shared, keys[i : i + _CHUNK]) for i in range(0, num, _CHUNK)]
    return Score(*(np.concatenate([np.asarray(part[i], float) for part in found]) for i in range(3)))


@eqx.filter_jit
def _chunk(learned: Any, experiment: Any, shared: Array | None, keys: Array) -> tuple[Array, Array, Array]:
    exact, problem, spec = _EXACT[type(experiment)], experiment.problem(), learned[1]

    def one(key):
        prior, latent, observed = problem.draw(key=key)
        parts = posterior_parts(learned, spec.encode(prior, observed))
        data = {name: rows if rows.present is not None else rows.values for name, rows in observed.items()}
        return exact(experiment, prior, data, spec.real(latent), parts, shared, jr.fold_in(key, 1))

    return jax.vmap(one)(keys)


_LOGITS = jnp.linspace(-12.0, 12.0, 1201)  # of the quantum parameter
_LOGS = jnp.linspace(-4.0, 9.0, 521)  # of the length-scale


def _on_grid(grid: GridPosterior, parts: Components, y: Array) -> tuple[Array, Array, Array]:
    """Divergences and gap, where the exact posterior is on a grid of y on the line."""
    points = grid.points[:, None]
    log_q = parts.log_prob(points)
    mean = jnp.sum(grid.mass * grid.points)
    variance = jnp.sum(grid.mass * (grid.points - mean) ** 2)
    normal = -0.5 * (grid.points - mean) ** 2 / variance - 0.5 * jnp.log(2 * jnp.pi * variance)
    gap = grid.log_prob(y[0]) - parts.log_prob(y)
    return grid.divergence(log_q), gap, grid.divergence(normal)


def _variance(experiment, prior, data, y, parts, shared, key):
    del shared, key
    law = experiment.exact(prior, data["observed"])
    a, b = law.concentration, law.rate
    centre, scale = jnp.log(b / a), 1 / jnp.sqrt(a)
    points = centre + scale * jnp.linspace(-14.0, 22.0, 1801)
    log_joint = -a * (points - centre) - b * jnp.exp(-points)
    return _on_grid(grid_posterior(points, log_joint, jnp.zeros_like(points)), parts, y)


def _quantum(experiment, prior, data, y, parts, shared, key):
    del key
    log_prior = prior.log_prob(jax.nn.sigmoid(_LOGITS)) + jax.nn.log_sigmoid(_LOGITS) + jax.nn.log_sigmoid(-_LOGITS)
    return _on_grid(grid_posterior(_LOGITS, log_prior, experiment.log_likelihood(shared, data)), parts, y)


def _length(experiment, prior, data, y, parts, shared, key):
    del shared, key
    log_prior = prior.log_prob(jnp.exp(_LOGS)) + _LOGS
    log_likelihood = jax.lax.map(lambda log: experiment.log_likelihood(jnp.exp(log), data["observed"]), _LOGS)
    return _on_grid(grid_posterior(_LOGS, log_prior, log_likelihood), parts, y)


def _linear(experiment, prior, data, y, parts, shared, key):
    del shared
    exact = components_of(experiment.exact(prior, data["observed"]))
    draws = mixture_of(exact).sample(key, (1000,))
    kl, best = (
        jnp.mean(exact.log_prob(draws) - law.log_prob(draws)) for law in (parts, _normal(*mixture_moments(exact)))
    )
    return kl, exact.log_prob(y) - parts.log_prob(y), best


def _fusion(experiment, prior, data, y, parts, shared, key):
    """Importance sampling of the exact posterior from its prior and from a wide form of the inferred mixture."""
    del shared
    key_wide, key_prior = jr.split(key)
    before, wide = components_of(prior), parts._replace(scale_tril=1.5 * parts.scale_tril)
    drawn = [mixture_of(law).sample(k, (2000,)) for law, k in ((wide, key_wide), (before, key_prior))]
    draws = jnp.concatenate(drawn)
    log_proposal = jnp.logaddexp(wide.log_prob(draws), before.log_prob(draws)) - jnp.log(2.0)
    log_joint = before.log_prob(draws) + experiment.log_likelihood(draws, data)
    log_evidence = jax.nn.logsumexp(log_joint - log_proposal) - jnp.log(len(draws))
    weights = jnp.exp(log_joint - log_proposal - log_evidence) / len(draws)
    mean = weights @ draws
    off = draws - mean
    normal = _normal(mean, jnp.einsum("n,ni,nj->ij", weights, off, off))
    log_exact = log_joint - log_evidence
    gap = before.log_prob(y) + experiment.log_likelihood(y, data) - log_evidence - parts.log_prob(y)
    return weights @ (log_exact - parts.log_prob(draws)), gap, weights @ (log_exact - normal.log_prob(draws))


def _normal(mean: Array, covariance: Array) -> Components:
    tril = jnp.linalg.cholesky(covariance + 1e-7 * jnp.trace(covariance) * jnp.eye(len(mean)))
    return Components(jnp.zeros(1), mean[None], tril[None])


_EXACT: dict[type, Callable] = {
    NormalVariance: _variance,
    QuantumParameter: _quantum,
    LengthScale: _length,
    LinearGaussian: _linear,
    BearingRange: _fusion,
}
