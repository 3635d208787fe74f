"""What the side-by-side runs, ours and the peers': `python _side_by_side_programs.py 'NAME SIZE ...'`, each in its
environment.

A program is a function of the sizes that sets up its problem, and returns a function that computes the answer once.
"""

import os
import sys

import _serve
import _side_by_side_nuts as nuts
import numpy as np


def _filter(num_particles, num_steps):
    from _particles import program

    return program(num_particles, num_steps)


def _peers_filter(name):
    def program(num_particles, num_steps):
        from _particles_peers import PROGRAMS

        return PROGRAMS[name](num_particles, num_steps)

    return program


def _wide_network(name):
    def program(rows):
        import _nngp

        return _nngp.OURS[name](rows)

    return program


def _gaussian_process(name):
    def program(rows):
        from _nngp_peers import PROGRAMS

        return PROGRAMS[name](rows)

    return program


def _gaps_ours(gaps):
    import jax

    jax.config.update("jax_enable_x64", True)
    import _mjp_gradient

    return _mjp_gradient.ours(*_mjp_gradient.snapshots(gaps))


def _gaps_loop(gaps):
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # more than one only delays matrices of 6 x 6
    import _mjp_gradient

    return _mjp_gradient.loop(*_mjp_gradient.snapshots(gaps))


def _one_pass(size):
    import jax
    from posterax_marginalization._law import log_marginals

    model, x, observed = _marginals(size)
    return lambda: np.asarray(jax.block_until_ready(log_marginals(model, x, observed)))


def _chain_of_passes(size):
    import jax
    import jax.random as jr
    from posterax_marginalization._checks import by_orders

    model, x, observed = _marginals(size)
    key = jr.key(2)
    return lambda: np.asarray(jax.block_until_ready(by_orders(model, x, observed, 1, key=key)))


def _marginals(size):
    """A network as it is before training: the time of a pass does not depend on what was learned."""
    import jax.numpy as jnp
    import jax.random as jr
    from posterax_marginalization import Dense, Marginals

    model = Marginals.init((2,) * size, Dense(256, 2), key=jr.key(0))
    x = jr.randint(jr.key(1), (300, size), 0, 2)
    return model, x, jnp.ones(x.shape, bool)


def _training_step(name):
    def program(size):
        import _marginalization_step

        return getattr(_marginalization_step, name)(size)

    return program


def _language(name):
    def program(num_particles, port):
        import importlib

        return importlib.import_module(name).program(num_particles, port)

    return program


PROGRAMS = {
    "nuts": nuts.ours, "nuts-numpyro": nuts.of_numpyro, "nuts-blackjax": nuts.of_blackjax,
    "filter": _filter, "filter-particles": _peers_filter("particles"), "filter-blackjax": _peers_filter("blackjax"),
    "gram": _wide_network("gram"), "gram-neural-tangents": _gaussian_process("neural-tangents-gram"),
    "evidence": _wide_network("evidence"), "evidence-gpytorch": _gaussian_process("gpytorch-cholesky-evidence"),
    "evidence-tinygp": _gaussian_process("tinygp-evidence"), "evidence-gpjax": _gaussian_process("gpjax-evidence"),
    "gaps": _gaps_ours, "gaps-scipy": _gaps_loop,
    "marginal": _one_pass, "marginal-chain": _chain_of_passes,
    "training": _training_step("ours"), "training-torch": _training_step("theirs"),
    "language": _language("_its_hub"), "language-its-hub": _language("_its_hub_peer"),
}  # fmt: skip

if __name__ == "__main__":
    name, *sizes = sys.argv[1].split()
    reports = {"value": nuts.variance, "told": nuts.told} if name.startswith("nuts") else {"at_least": 0.05}
    _serve.serve(lambda: PROGRAMS[name](*map(int, sizes)), **reports)
