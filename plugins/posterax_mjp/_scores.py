"""How good a network's laws are on fresh processes of a prior."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from ._path_encoder import PathEncoder
from ._prior import ProcessPrior
from ._rate_law import RateLaw
from ._training_data import Examples, PathBatches, examples


class Scores(NamedTuple):
    """Of n processes; one randomly chosen present edge of each stands for its rates, so that all are independent.

    - `place`: `(n,)`, the probability that the law gives to smaller rates, uniform where it is right. `z`: `(n,)`, rate
      less mean over the standard deviation. `edge_probs`, `edges`: `(n, k (k - 1))`, told and true.
    - `errors`: `(n, k (k - 1))`, means less true rates, absent ones included, per horizon. `log_density`: `(n,)`, of
      all rates and edges, nats a pair of states.
    """

    place: Float[np.ndarray, " n"]
    z: Float[np.ndarray, " n"]
    edge_probs: Float[np.ndarray, "n E"]
    edges: Bool[np.ndarray, "n E"]
    errors: Float[np.ndarray, "n E"]
    log_density: Float[np.ndarray, " n"]

    def summary(self) -> dict[str, float]:
        """Numbers for a card: the error, the mean log density, coverages, and the Brier score of the edges."""
        covered = {f"coverage_{level}": np.mean(np.abs(self.place - 0.5) < level / 200) for level in (50, 80, 95)}
        found = {
            "rmse": np.sqrt(np.mean(self.errors**2)), "nll": -np.mean(self.log_density), "z_sd": np.std(self.z),
            **covered, "brier": np.mean((self.edge_probs - self.edges) ** 2), "num": len(self.z),
        }  # fmt: skip
        return {name: round(float(value), 4) for name, value in found.items()}


def score(
    network: Any, prior: ProcessPrior, num_states: int, num: int, *, most_paths: int = 300, key: PRNGKeyArray
) -> Scores:
    """On `num` fresh processes; the number of their paths is log-uniform up to `most_paths`."""
    made = _fresh(network, prior, num_states, num, most_paths, key)
    laws, log_density, place = _laws(network, made)
    off = ~np.eye(num_states, dtype=bool)
    rates = np.asarray(made.rates)
    edges = (rates > 0) & off
    rng = np.random.default_rng(int(jr.randint(jr.fold_in(key, 1), (), 0, 2**30)))
    chosen = np.array([rng.choice(np.flatnonzero(one)) for one in edges])
    at = lambda values: np.asarray(values).reshape(len(rates), -1)[np.arange(len(rates)), chosen]  # noqa: E731
    mean, sd, every = (np.asarray(value) for value in laws[:3])
    return Scores(
        at(place), (at(rates) - at(mean)) / at(sd), np.asarray(laws[3])[:, off], edges[:, off], (every - rates)[:, off],
        np.asarray(log_density) / off.sum(),
    )  # fmt: skip


def _fresh(network: Any, prior: ProcessPrior, num_states: int, num: int, most_paths: int, key: Any) -> Examples:
    if isinstance(network, PathEncoder):
        return eqx.filter_jit(PathBatches(prior, (num_states,), num, most_paths))(key)[0]
    return jax.tree.map(jnp.asarray, examples(prior, num_states, num, most_paths=most_paths, key=key))


@eqx.filter_jit
def _laws(network: Any, made: Examples) -> Any:
    def one(rates, told):
        law: RateLaw = network(told)
        rates = jnp.where(jnp.eye(len(rates), dtype=bool), 0.0, rates)
        moments = (law.present_mean(), jnp.sqrt(law.present_variance()), law.mean, law.edge_probs)
        return moments, law.log_prob({"rates": rates}), law.present_cdf(jnp.where(rates > 0, rates, 1.0))

    return jax.lax.map(lambda given: one(*given), (made.rates, made.told), batch_size=64)
