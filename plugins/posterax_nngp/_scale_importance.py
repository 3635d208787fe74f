"""Importance sampling of the scale: the algorithm of the paper, with proposals that do and do not collapse."""

import warnings
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaln, logsumexp
from jaxtyping import Array, Float, PRNGKeyArray
from posterax import PosteraxWarning, weights
from posterax._precision import precision

from ._priors import Atoms
from ._scale_nodes import FAR
from ._scale_posterior import ScalePosterior
from ._scale_prior import likelihood, log_density, name, widen

Proposal = Literal["likelihood", "prior", "mixture"]
ENOUGH = 100
TRUSTED = 0.7


class ImportanceSample(NamedTuple):
    """Weighted draws of the scale, and how far to trust them.

    - `scales`: `(num_draws,)`. `log_weights`: `(num_draws,)`, they sum to one.
    - `log_marginal`: the estimate of what `log_marginal` gives, in nats.
    - `ess`: effective sample size, from 1 to `num_draws`. `pareto_k`: k-hat of the weights; trusted below 0.7.
    """

    scales: Float[Array, " S"]
    log_weights: Float[Array, " S"]
    log_marginal: Float[Array, ""]
    ess: float
    pareto_k: float


def importance(
    prior: dist.Distribution,
    quad,
    count,
    *,
    proposal: Proposal = "likelihood",
    num_draws: int = 1000,
    key: PRNGKeyArray,
) -> ImportanceSample:
    """Self-normalised importance sampling of s given the data. Arguments as for `log_marginal`, and:

    - `proposal`: where draws come from. "likelihood" is InverseGamma(count/2 - 1, quad/2), the likelihood read as a
      density of s, for `count` above 2 and positive `quad`. "prior" is the paper's, and collapses from some dozens of
      observations on. "mixture" takes a third of each and a third from a Student-t law in log s, of 4 degrees of
      freedom, at the posterior's centre (by quadrature): no weight can then be large, even where prior and data
      disagree. It goes without its likelihood part where that is no law.
    - `num_draws`: how many draws.
    - `key`: a JAX key.

    Warns with `PosteraxWarning` where fewer than 100 draws are effective or k-hat is not below 0.7. Runs in float64 on
    the host. Raises `ValueError` for another proposal, no draws, or a prior without density. Source: Lee et al. (2022),
    arXiv:2107.01408; mixtures as proposals, Owen and Zhou (2000), doi:10.1080/01621459.2000.10473909.
    """
    if proposal not in get_args(Proposal):
        raise ValueError(f'`proposal` must be "likelihood", "prior" or "mixture"; got {proposal!r}.')
    if num_draws < 1:
        raise ValueError(f"`num_draws` must be at least 1; got {num_draws}.")
    if isinstance(prior, (dist.Delta, Atoms)):
        raise ValueError(
            f"`prior` must have a density; got {name(prior)}, whose posterior `scale_posterior` gives exactly."
        )
    if proposal == "likelihood" and not (count > 2 and quad > 0):
        raise ValueError(
            'The proposal "likelihood" is a law only for `count` above 2 and positive `quad`; '
            f'got count = {count} and quad = {quad}. Use proposal="mixture" or "prior".'
        )
    with precision(64):
        prior, quad = widen(prior), jnp.asarray(quad, float)
        log_q, t = _proposals(prior, quad, count, proposal, num_draws, key)
        log_l, constant = likelihood(quad, count)
        log_weights = log_density(prior)[0](t) + log_l(t) - log_q
        result = ImportanceSample(
            jnp.exp(t),
            weights.normalise(log_weights),
            weights.log_mean(log_weights) + constant,
            float(weights.effective_sample_size(log_weights)),
            _pareto_k(log_weights),
        )
    _complain(result, proposal)
    return result


def _pareto_k(log_weights) -> float:
    """k-hat, and NaN where so few draws have weight that the fit to their tail underflows."""
    with np.errstate(invalid="ignore"):
        smoothed, k = weights.smooth(log_weights)
    return float("nan") if np.isnan(smoothed).any() else float(k)


def _proposals(prior, quad, count, proposal, num_draws, key):
    """Log densities of t = log s under the proposal, and the draws of t, each `(num_draws,)`."""
    key_prior, key_likelihood, key_centre = jr.split(key, 3)
    parts = []
    if proposal in ("prior", "mixture"):
        parts.append((log_density(prior)[0], lambda n: jnp.log(prior.sample(key_prior, (n,)))))
    if proposal == "likelihood" or (proposal == "mixture" and count > 2 and quad > 0):
        shape, rate = count / 2 - 1, quad / 2
        log_l, constant = likelihood(quad, count)
        constant = constant + shape * jnp.log(rate) - gammaln(shape)
        parts.append(
            (
                lambda t: log_l(t) + t + constant,
                lambda n: jnp.log(rate) - jr.loggamma(key_likelihood, shape, (n,)),
            )
        )
    if proposal == "mixture":
        posterior = ScalePosterior(prior, quad, count)
        mass = jnp.exp(posterior.log_weights)
        centre = mass @ posterior.nodes
        centred = dist.StudentT(4.0, centre, jnp.sqrt(mass @ (posterior.nodes - centre) ** 2))
        parts.append((centred.log_prob, lambda n: centred.sample(key_centre, (n,))))
    sizes = [num_draws // len(parts) + (i < num_draws % len(parts)) for i in range(len(parts))]
    t = jnp.concatenate([draw(size) for (_, draw), size in zip(parts, sizes, strict=True)])
    t = jnp.clip(t, -FAR, FAR)  # a draw that is 0 in float64 has log weight -inf, not NaN
    shares = jnp.log(jnp.array(sizes) / num_draws)
    return logsumexp(jnp.stack([log_q(t) for log_q, _ in parts]) + shares[:, None], axis=0), t


def _complain(result: ImportanceSample, proposal: str) -> None:
    if result.ess >= ENOUGH and result.pareto_k < TRUSTED:
        return
    draws = result.scales.size
    better = {"prior": 'proposal="likelihood" or "mixture"', "likelihood": 'proposal="mixture"'}.get(proposal)
    warnings.warn(
        f'Importance sampling of the scale with proposal "{proposal}" is not to be trusted: {draws} draws are worth '
        f"{result.ess:.1f} (at least {ENOUGH} are wanted), and the Pareto k of their weights is {result.pareto_k:.2f} "
        f"(below {TRUSTED} is wanted). Use {better + ', ' if better else ''}more draws, or the quadrature of "
        "scale_posterior, which has no Monte Carlo error.",
        PosteraxWarning,
        stacklevel=3,
    )
