"""What a network is told of a process: rates by Fisher scoring from counted transitions, and how sure they are.

Every number belongs to a state or to a pair of states and moves with it when labels are permuted; times are in units of
the horizon.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._generators import generator, series_and_squares

_EM_STEPS, _SCORING_STEPS = 20, 6
_LOG_SD = 2.5  # of the normal law of log rates, around 1 per horizon, that keeps scoring within bounds
_LONGEST = 1.5  # a step of scoring, in logarithms


class Summaries(eqx.Module):
    """Of one process of k states.

    - `counts`: `(k, k)`, transitions, all gaps together. `firsts`: `(k,)`, first states.
    - `log_rates`: `(k, k)`, where the likelihood times a wide normal law is largest; diagonal 0.
    - `sds`: `(k, k)`, of the log rates by the expected information, others unknown; `alone`: others known.
    - `jumps`, `dwells`: expected jumps i to j, and time in i, given the data and these rates: `(k, k)` and `(k,)`.
    - `noise`: the share of wrong labels. `total`: rows that follow another one.
    """

    counts: Float[Array, "k k"]
    firsts: Float[Array, " k"]
    log_rates: Float[Array, "k k"]
    sds: Float[Array, "k k"]
    alone: Float[Array, "k k"]
    jumps: Float[Array, "k k"]
    dwells: Float[Array, " k"]
    noise: Float[Array, ""]
    total: Float[Array, ""]


def summarise(
    counts: Float[Array, "G k k"], gaps: Float[Array, " G"], firsts: Float[Array, " k"], noise: Float[Array, ""]
) -> Summaries:
    """From (expected) numbers of transitions over each gap, in units of the horizon."""
    size = counts.shape[-1]
    start, end = np.nonzero(~np.eye(size, dtype=bool))
    around = lambda values: jnp.zeros((size, size)).at[start, end].set(values)  # noqa: E731
    rough = expectation_steps(counts, gaps, jnp.zeros((size, size)), _EM_STEPS)[start, end]
    logs, information = _by_scoring(counts, gaps, rough, start, end)
    jumps, dwells = _expected(counts, gaps, logs, start, end)
    sds = jnp.sqrt(jnp.diagonal(jnp.linalg.inv(information)))
    return Summaries(
        counts=jnp.sum(counts, 0), firsts=firsts, log_rates=around(logs), sds=around(sds),
        alone=around(1 / jnp.sqrt(jnp.diagonal(information))), jumps=around(jumps), dwells=dwells, noise=noise,
        total=jnp.sum(counts),
    )  # fmt: skip


def _matrix(logs: Array, start: np.ndarray, end: np.ndarray, size: int) -> Array:
    return generator(jnp.zeros((size, size)).at[start, end].set(jnp.exp(logs)))


def _expected(counts: Array, gaps: Array, logs: Array, start: np.ndarray, end: np.ndarray) -> tuple[Array, Array]:
    """Jumps over each edge and time in each state, given what is at the ends of the gaps.

    They are derivatives: of the log-likelihood in the log of a rate, the diagonal kept, and in a diagonal entry.
    """

    def value(matrix):
        probs = series_and_squares(matrix, gaps)
        return jnp.sum(counts * jnp.log(jnp.maximum(probs, 1e-12)))

    slopes = jax.grad(value)(_matrix(logs, start, end, counts.shape[-1]))
    return jnp.maximum(jnp.exp(logs) * slopes[start, end], 0.0), jnp.maximum(jnp.diagonal(slopes), 0.0)


def expectation_steps(
    counts: Float[Array, "G k k"], gaps: Float[Array, " G"], logs: Float[Array, "k k"], num: int
) -> Float[Array, "k k"]:
    """Steps of the EM algorithm for log rates, with a twentieth of a jump and of a horizon added; diagonal 0."""
    size = counts.shape[-1]
    start, end = np.nonzero(~np.eye(size, dtype=bool))

    def step(logs, _):
        jumps, dwells = _expected(counts, gaps, logs, start, end)
        return jnp.log((jumps + 0.05) / (dwells[start] + 0.05)), None

    found = jax.lax.scan(step, logs[start, end], None, length=num)[0]
    return jnp.zeros((size, size)).at[start, end].set(found)


def _by_scoring(counts: Array, gaps: Array, logs: Array, start: np.ndarray, end: np.ndarray) -> tuple[Array, Array]:
    """Fisher scoring of Kalbfleisch and Lawless (1985), and the information at its end."""
    size, eye = counts.shape[-1], jnp.eye(len(start))
    leaving = jnp.sum(counts, -1, keepdims=True)

    def probs_of(logs):
        return series_and_squares(_matrix(logs, start, end, size), gaps)

    def derivatives(logs):
        probs, along = jax.linearize(probs_of, logs)
        slopes, probs = jax.vmap(along)(eye), jnp.maximum(probs, 1e-10)
        gradient = jnp.einsum("egij,gij->e", slopes, counts / probs) - logs / _LOG_SD**2
        information = jnp.einsum("egij,fgij,gij->ef", slopes, slopes, leaving / probs) + eye / _LOG_SD**2
        return gradient, information

    def step(logs, _):
        gradient, information = derivatives(logs)
        move = jax.scipy.linalg.solve(information, gradient, assume_a="pos")
        return logs + jnp.clip(move, -_LONGEST, _LONGEST), None

    logs = jax.lax.scan(step, logs, None, length=_SCORING_STEPS)[0]
    return logs, derivatives(logs)[1]
