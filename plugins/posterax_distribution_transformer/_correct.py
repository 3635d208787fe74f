"""From the amortised answer to an exact one: weights by the true likelihood, and Markov chains from there."""

import warnings
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import PRNGKeyArray
from posterax import Draw, Draws, Estimator, Infer, PosteraxWarning, Reweight, Sample, Sampler, Target, get

from ._estimator import DistributionTransformer

VARIABLE = "x"  # the latent's name in draws
_ALIKE = 0.8  # share of the effective sample size above which weights hardly differ
_UNRELIABLE = 0.7  # Pareto k-hat above which weights are not to be trusted, as in ArviZ


class Defended(Estimator):
    """An estimator whose answers are mixed with the prior: a proposal whose weights the likelihood bounds.

    Mixtures of normals can have lighter tails than the posterior; with some draws from the prior no weight is above
    the largest likelihood over `share` (a defensive mixture: Hesterberg (1995), doi:10.1080/00401706.1995.10484303).
    In pipelines: `Infer(Defended(fitted), observed, prior) >> Draw(1000) >> Reweight(target)`.

    - `fitted`: a trained `DistributionTransformer`.
    - `share`: of the draws that come from the prior, between 0 and 1.

    It does not warn of what is outside of the training's range: the weights will tell. Where the prior is no
    distribution, there is nothing to mix, and the answer stays as it is.
    """

    fitted: DistributionTransformer
    share: float = 0.1

    def __check_init__(self):
        if not 0 < self.share < 1:
            raise ValueError(f"`share` must be between 0 and 1; got {self.share!r}.")

    def fit(self, data: Any, *, key: PRNGKeyArray) -> "Defended":
        """The same of an estimator trained on `data`."""
        return Defended(self.fitted.fit(data, key=key), self.share)

    def infer(self, observed: Any = None, *, prior: Any = None, key: PRNGKeyArray | None = None) -> Any:
        """The mixture of answer and prior."""
        del key
        found = self.fitted.infer(observed, prior=prior, check=False)
        if not isinstance(prior, dist.Distribution) or found is prior:
            return found
        shares = dist.Categorical(probs=jnp.array([1 - self.share, self.share]))
        return dist.MixtureGeneral(shares, [found, prior], support=prior.support)


def posterior_target(prior: Any, log_likelihood: Callable[..., Any], *data: Any) -> Target:
    """The exact posterior, as a `Target` of one latent "x".

    - `prior`: a NumPyro distribution.
    - `log_likelihood`: `log_likelihood(x, *data)`, in nats, a number; with `jax.numpy`.
    """
    return Target.from_numpyro(_Model(log_likelihood), prior, *data)


class _Model:
    """A prior and a factor; equal where the likelihood is, so that nothing compiles again."""

    def __init__(self, log_likelihood: Callable[..., Any]):
        self.log_likelihood = log_likelihood

    def __call__(self, prior, *data):
        x = numpyro.sample(VARIABLE, prior)
        numpyro.factor("log_likelihood", self.log_likelihood(x, *data))

    def __eq__(self, other):
        return isinstance(other, _Model) and self.log_likelihood == other.log_likelihood

    def __hash__(self):
        return hash(self.log_likelihood)


def correct(
    fitted: DistributionTransformer,
    observed: Any,
    *,
    prior: Any,
    target: Target,
    num_draws: int = 4000,
    key: PRNGKeyArray,
) -> Draws:
    """Draws weighted so that they target the exact posterior.

    Nine of ten come from the inferred mixture, one from the prior: see `Defended`.

    - `target`: of a latent "x": `posterior_target(prior, log_likelihood, data)`, or any `Target`.

    The result has the log evidence; its effective sample size and Pareto k-hat, methods of it and part of its history,
    tell how good the amortised answer was. Warns where k-hat is above 0.7: then `hand_off`, or train on such problems.
    Not where the effective sample size is above four fifths of the draws: k-hat looks at the shape of the largest
    weights alone, however little they differ, and these are bounded.
    """
    draws = (_drawn(fitted, observed, prior, num_draws) >> Reweight(target)).run(key=key)
    khat, ess = draws.pareto_k(), draws.effective_sample_size()
    if not khat <= _UNRELIABLE and ess < _ALIKE * num_draws:
        warnings.warn(
            f"The inferred mixture does not cover the posterior: Pareto k-hat is {khat:.2f}, above {_UNRELIABLE}, and "
            f"the effective sample size {ess:.0f} of {num_draws}. Weighted draws are not to "
            "be trusted; `hand_off` runs Markov chains from there.", PosteraxWarning, stacklevel=2,
        )  # fmt: skip
    return draws


def hand_off(
    fitted: DistributionTransformer,
    observed: Any,
    *,
    prior: Any,
    target: Target,
    sampler: Sampler | None = None,
    num_draws: int = 1000,
    num_chains: int = 4,
    key: PRNGKeyArray,
) -> Draws:
    """Markov chains on the exact posterior, started at weighted draws of the inferred mixture.

    - `target`: as in `correct`.
    - `sampler`: NUTS with a short warm-up by default.
    """
    sampler = get("nuts")(num_warmup=300) if sampler is None else sampler
    start = _drawn(fitted, observed, prior, 1000) >> Reweight(target)
    return (start >> Sample(sampler, target, num_draws, num_chains)).run(key=key)


def _drawn(fitted: DistributionTransformer, observed: Any, prior: Any, num_draws: int) -> Any:
    return Infer(Defended(fitted), observed, prior) >> Draw(num_draws, variable=VARIABLE)
