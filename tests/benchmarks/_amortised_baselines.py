"""What amortised inference is held against: variational inference and NUTS, one problem at a time."""

import time

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import optax

SVI_STEPS, DRAWS = 1500, 10


def variational(log_joint, num_components: int, *, key):
    """A mixture of normals on the line by stochastic variational inference: log weights, means, sds, `(K,)` each.

    The ELBO is summed over components, each with `DRAWS` reparameterised draws, so that weights have a gradient of
    small variance too. Adam, rate 0.05 falling to 0 as a cosine.
    """
    start = {
        "logits": jnp.zeros(num_components),
        "mean": jnp.linspace(-1.0, 1.0, num_components) if num_components > 1 else jnp.zeros(1),
        "log_sd": jnp.zeros(num_components),
    }
    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, SVI_STEPS))

    def log_q(law, y):
        z = (y[..., None] - law["mean"]) * jnp.exp(-law["log_sd"])
        each = jax.nn.log_softmax(law["logits"]) - 0.5 * z**2 - law["log_sd"]
        return jax.nn.logsumexp(each, -1) - 0.5 * jnp.log(2 * jnp.pi)

    def loss(law, key):
        y = law["mean"] + jnp.exp(law["log_sd"]) * jr.normal(key, (DRAWS, num_components))
        return jnp.sum(jax.nn.softmax(law["logits"]) * jnp.mean(log_q(law, y) - jax.vmap(jax.vmap(log_joint))(y), 0))

    def step(carry, key):
        law, state = carry
        updates, state = optimiser.update(jax.grad(loss)(law, key), state)
        return (optax.apply_updates(law, updates), state), None

    law = jax.lax.scan(step, (start, optimiser.init(start)), jr.split(key, SVI_STEPS))[0][0]
    return jax.nn.log_softmax(law["logits"]), law["mean"], jnp.exp(law["log_sd"])


def nuts(log_joint, *, key, warmup: int = 200, draws: int = 500):
    """Draws `(draws,)` of one problem by NumPyro's NUTS, which can be mapped over problems."""
    from numpyro.infer.hmc import hmc

    init, kernel = hmc(lambda y: -log_joint(y), algo="NUTS")
    state = init(jnp.zeros(()), warmup, rng_key=key)

    def move(state, _):
        state = kernel(state)
        return state, state.z

    return jax.lax.scan(move, state, None, warmup + draws)[1][warmup:]


def variances(fitted, num: int) -> list[str]:
    """Lines of a table: the variance of normal data (experiment 4.1) by every method."""
    from posterax_distribution_transformer import NormalVariance, components_of, grid_posterior

    problem = NormalVariance().problem()
    prior, _, observed = jax.jit(jax.vmap(lambda key: problem.draw(key=key)))(jr.split(jr.key(4321), num))
    seen = observed["observed"].values.reshape(num)
    given = (prior.concentration, prior.rate, seen)
    points = jnp.linspace(-8.0, 12.0, 4001)

    def log_joint(a, b, z):
        return lambda y: dist.InverseGamma(a, b).log_prob(jnp.exp(y)) + y + dist.Normal(0, jnp.exp(y / 2)).log_prob(z)

    @jax.jit
    def exact():
        log_density = jax.vmap(lambda *one: jax.vmap(log_joint(*one))(points))(*given)
        return grid_posterior(points, log_density, jnp.zeros_like(points))

    @jax.jit
    def divergence(log_weights, mean, sd):
        each = log_weights[:, None] + dist.Normal(mean[:, None], sd[:, None]).log_prob(points[:, None])
        return grid.divergence(jax.nn.logsumexp(each, -1))

    def mapped(one):
        run = jax.jit(jax.vmap(one))
        return lambda: run(*given, jr.split(jr.key(1), num))

    def network():
        law = fitted.infer(seen, prior=dist.InverseGamma(*given[:2]), check=False)
        parts = components_of(law.base_dist)  # of the logarithm
        return parts.log_weights, parts.mean[..., 0], parts.scale_tril[..., 0, 0]

    def clocked(call):
        jax.block_until_ready(call())
        began = time.perf_counter()
        return jax.block_until_ready(call()), f"{1e3 * (time.perf_counter() - began) / num:.3f} ms"

    def off(centre):
        return f"mean {np.abs(np.asarray((centre - mean) / sd)).mean():.3f} sd off"

    grid, seconds = clocked(exact)
    mean = jnp.sum(grid.mass * points, -1)
    sd = jnp.sqrt(jnp.sum(grid.mass * (points - mean[:, None]) ** 2, -1))
    calls = {
        "network": network,
        "SVI, one normal": mapped(lambda a, b, z, key: variational(log_joint(a, b, z), 1, key=key)),
        "SVI, five normals": mapped(lambda a, b, z, key: variational(log_joint(a, b, z), 5, key=key)),
    }
    best = divergence(jnp.zeros((num, 1)), mean[:, None], sd[:, None])
    lines = [f"quadrature, {len(points)} points: exact; {seconds}", f"best normal: KL mean {best.mean():.5f}"]
    for name, call in calls.items():
        found, seconds = clocked(call)
        kl, centre = np.asarray(divergence(*found)), jnp.sum(jnp.exp(found[0]) * found[1], -1)
        told = f"KL mean {kl.mean():.5f}, median {np.median(kl):.5f}, 95 % {np.quantile(kl, 0.95):.5f}"
        lines.append(f"{name}: {told}; {off(centre)}; {seconds}")
    draws, seconds = clocked(mapped(lambda a, b, z, key: nuts(log_joint(a, b, z), key=key)))
    return [*lines, f"NUTS, 200 + 500 draws: {off(draws.mean(-1))}; {seconds}"]
