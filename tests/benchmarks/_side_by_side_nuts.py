"""NUTS on one density by posterax, NumPyro and BlackJAX, for the side-by-side.

The density is a stationary autoregression of standard normals, whose moments are known. All start uniformly on
(-2, 2), adapt a diagonal mass matrix in Stan's windows at a mean acceptance of 0.8, and go at most ten doublings deep.
Only NumPy is imported before a program is set up, so that each may run in its own environment.
"""

import itertools

import numpy as np

CORRELATION, WARMUP, DRAWS = 0.7, 300, 500


def log_density(x):
    """Of D standard normals, each correlated with the one before."""
    steps = x[1:] - CORRELATION * x[:-1]
    return -0.5 * (x[0] ** 2 + (steps**2).sum() / (1 - CORRELATION**2))


# Each program gives the draws (chain, draw, D) and their leapfrog steps (chain, draw), and what a stopwatch said.


def ours(size: int, chains: int):
    import jax.numpy as jnp
    import jax.random as jr
    from posterax import Target, sample
    from posterax_numpyro import NUTS

    target = Target(lambda x: log_density(x["x"]), like={"x": jnp.zeros(size)})

    def run(key):
        draws = sample(NUTS(num_warmup=WARMUP), target, num_draws=DRAWS, num_chains=chains, key=key, progress=False)
        return draws.values["x"], draws.stats["n_steps"]

    return _timed(run, jr.key)


def of_numpyro(size: int, chains: int):
    import jax
    import jax.random as jr
    from numpyro.infer import MCMC, NUTS

    mcmc = MCMC(
        NUTS(potential_fn=lambda x: -log_density(x)), num_warmup=WARMUP, num_samples=DRAWS, num_chains=chains,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip

    def run(key):
        key_start, key_run = jr.split(key)
        start = jr.uniform(key_start, (chains, size) if chains > 1 else (size,), minval=-2.0, maxval=2.0)
        mcmc.run(key_run, init_params=start, extra_fields=("num_steps",))
        draws = mcmc.get_samples(group_by_chain=True)
        return jax.block_until_ready((draws, mcmc.get_extra_fields(group_by_chain=True)["num_steps"]))

    return _timed(run, jr.key)


def of_blackjax(size: int, chains: int):
    import blackjax
    import jax
    import jax.random as jr
    from blackjax.adaptation.base import get_filter_adapt_info_fn

    warm_up = blackjax.window_adaptation(blackjax.nuts, log_density, adaptation_info_fn=get_filter_adapt_info_fn())

    def chain(key):
        key_start, key_warm, key_draws = jr.split(key, 3)
        start = jr.uniform(key_start, (size,), minval=-2.0, maxval=2.0)
        (state, settings), _ = warm_up.run(key_warm, start, num_steps=WARMUP)
        kernel = blackjax.nuts(log_density, **settings)

        def step(state, key):
            state, info = kernel.step(key, state)
            return state, (state.position, info.num_integration_steps)

        return jax.lax.scan(step, state, jr.split(key_draws, DRAWS))[1]

    run = jax.jit(jax.vmap(chain))
    return _timed(lambda key: jax.block_until_ready(run(jr.split(key, chains))), jr.key)


def _timed(run, new_key):
    from _timing import Stopwatch

    numbers = itertools.count()

    def once():
        key = new_key(next(numbers))
        with Stopwatch() as watch:
            found = run(key)
        return found, watch

    return once


# What a run tells


def told(answer) -> dict[str, float]:
    """Seconds without the compiler's, leapfrog steps of all draws, and the least effective sample size of a mean."""
    (draws, steps), watch = answer
    draws = np.asarray(draws)
    sizes = [effective_size(draws[..., d].astype(float)) for d in range(draws.shape[-1])]
    return {"execution": watch.execution, "leapfrogs": float(np.sum(steps)), "ess": min(sizes)}


def variance(answer) -> float:
    """The mean square over all coordinates and draws, which is 1."""
    return float(np.mean(np.square(np.asarray(answer[0][0], float))))


def effective_size(draws: np.ndarray) -> float:
    """Effective sample size of the mean of draws `(chain, draw)`, by Geyer's initial monotone sequence."""
    chains, num = draws.shape
    centred = draws - draws.mean(1, keepdims=True)
    power = np.abs(np.fft.rfft(centred, 2 * num)) ** 2
    covariance = np.fft.irfft(power)[:, :num].mean(0) / num
    within = covariance[0] * num / (num - 1)
    whole = covariance[0] + (draws.mean(1).var(ddof=1) if chains > 1 else 0.0)
    correlation = 1 - (within - covariance) / whole
    correlation[0] = 1.0
    pairs = correlation[: num // 2 * 2].reshape(-1, 2).sum(1)
    pairs = np.minimum.accumulate(pairs[: np.argmax(pairs <= 0)] if (pairs <= 0).any() else pairs)
    return float(chains * num / max(2 * pairs.sum() - 1, 1 / np.log10(chains * num)))
