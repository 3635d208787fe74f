"""The slopes of a log-likelihood of snapshots with different gaps: ours, and a loop over SciPy's matrix exponential."""

import numpy as np


def snapshots(num: int) -> tuple[np.ndarray, ...]:
    """Gaps, and states before and after them, `(num,)` each; any would do."""
    rng = np.random.default_rng(0)
    gaps = rng.uniform(0.01, 0.5, num)
    return gaps, *rng.integers(0, 6, (2, num))


def ours(gaps: np.ndarray, start: np.ndarray, end: np.ndarray):
    """A function that gives the slopes in the 30 rates of the flashing ratchet; float64 is to be on."""
    import jax
    import jax.numpy as jnp
    from posterax_mjp import transition_probs

    places, generator = _places()

    def value(rates):
        matrix = jnp.zeros((6, 6)).at[tuple(places.T)].set(rates)
        probs = transition_probs(matrix - jnp.diag(matrix.sum(1)), jnp.asarray(gaps))
        return jnp.sum(jnp.log(probs[jnp.arange(len(gaps)), start, end]))

    slopes = jax.jit(jax.value_and_grad(value))
    rates = jnp.asarray(generator[tuple(places.T)])
    return lambda: np.asarray(slopes(rates)[1])


def loop(gaps: np.ndarray, start: np.ndarray, end: np.ndarray):
    """The same as it is written first: the adjoint derivative gives all 30 slopes of a gap at once."""
    from scipy.linalg import expm, expm_frechet

    places, generator = _places()

    def once() -> np.ndarray:
        total = np.zeros((6, 6))
        for gap, i, j in zip(gaps, start, end, strict=True):
            weight = np.zeros((6, 6))
            weight[i, j] = gap / expm(generator * gap)[i, j]
            total += expm_frechet((generator * gap).T, weight, compute_expm=False)
        return np.array([total[i, j] - total[i, i] for i, j in places])

    return once


def _places() -> tuple[np.ndarray, np.ndarray]:
    from posterax_models import FlashingRatchet

    return np.argwhere(~np.eye(6, dtype=bool)), FlashingRatchet().generator
