"""NUTS and HMC on NumPyro's own kernels, one chain and one step at a time."""

from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree
from numpyro.infer.hmc import HMCState, hmc
from posterax import Sampler


class HMCInfo(NamedTuple):
    """What one trajectory tells, under ArviZ's names."""

    lp: Float[Array, ""]  # log density of unconstrained space, up to a constant
    energy: Float[Array, ""]  # of the accepted point, momentum included
    acceptance_rate: Float[Array, ""]  # mean acceptance probability over the trajectory
    diverging: Bool[Array, ""]  # the energy error passed 1000
    n_steps: Int[Array, ""]  # gradient evaluations
    step_size: Float[Array, ""]  # of this trajectory


class NUTSInfo(NamedTuple):
    """What one trajectory tells, under ArviZ's names."""

    lp: Float[Array, ""]
    energy: Float[Array, ""]
    acceptance_rate: Float[Array, ""]
    diverging: Bool[Array, ""]
    n_steps: Int[Array, ""]
    step_size: Float[Array, ""]
    tree_depth: Int[Array, ""]  # doublings of the trajectory


class NUTS(Sampler):
    """The No-U-Turn sampler with multinomial choice along the trajectory, as implemented by NumPyro.

    During warm-up the step size is adapted by dual averaging and the mass matrix by Welford's estimate, in Stan's
    windows; then both stay fixed, and the target's distribution is invariant exactly.

    - `num_warmup`: steps that adapt. 0 freezes the sampler at `step_size` and `inverse_mass_matrix`.
    - `target_accept`: mean acceptance probability that the adaptation aims at, in (0, 1).
    - `max_tree_depth`: at most `2 ** max_tree_depth - 1` gradient evaluations a step.
    - `dense_mass`: a full mass matrix instead of a diagonal one.
    - `step_size`: where the adaptation begins.
    - `inverse_mass_matrix`: likewise; variances `(dim,)` or a covariance `(dim, dim)` of the position flattened in the
      order of `jax.flatten_util.ravel_pytree`; None for the identity.

    Source: Hoffman and Gelman (2014), JMLR 15:1593; Betancourt (2017), arXiv:1701.02434; NumPyro's `infer.hmc.hmc`.
    """

    num_warmup: int = 1000
    target_accept: float = 0.8
    max_tree_depth: int = 10
    dense_mass: bool = False
    step_size: float | Float[Array, ""] = 1.0
    inverse_mass_matrix: Float[Array, "..."] | None = None

    def __check_init__(self):
        _check(self)
        if not (isinstance(self.max_tree_depth, int) and 1 <= self.max_tree_depth <= 20):
            raise ValueError(f"`max_tree_depth` must be an integer from 1 to 20; got {self.max_tree_depth!r}.")

    def init(self, target, position, *, key):
        _check_size(self.inverse_mass_matrix, position)
        init, _ = self._kernel(target)
        return _without_keys(init(position, key))

    def step(self, target, state, *, key):
        init, step = self._kernel(target)
        state = _step(init, step, state, key)
        return state, NUTSInfo(*_info(state), tree_depth=_bit_length(state.num_steps))

    def position(self, state):
        return state.z

    def log_density(self, state):
        return -state.potential_energy

    def frozen(self, states) -> Self:
        return _frozen(self, states)

    def _kernel(self, target):
        return _kernel(self, target, "NUTS", max_tree_depth=self.max_tree_depth)


class HMC(Sampler):
    """Hamiltonian Monte Carlo with trajectories of fixed length, as implemented by NumPyro.

    - `trajectory_length`: integration time of a trajectory, in units where the mass matrix makes scales one; the number
      of leapfrog steps is this over the step size, rounded up.
    - the other settings: as in `NUTS`.

    Source: Neal (2011), arXiv:1206.1901; NumPyro's `infer.hmc.hmc`.
    """

    num_warmup: int = 1000
    trajectory_length: float = 2 * np.pi
    target_accept: float = 0.8
    dense_mass: bool = False
    step_size: float | Float[Array, ""] = 1.0
    inverse_mass_matrix: Float[Array, "..."] | None = None

    def __check_init__(self):
        _check(self)
        if not 0 < self.trajectory_length < np.inf:
            raise ValueError(f"`trajectory_length` must be positive and finite; got {self.trajectory_length!r}.")

    def init(self, target, position, *, key):
        _check_size(self.inverse_mass_matrix, position)
        init, _ = self._kernel(target)
        return _without_keys(init(position, key))

    def step(self, target, state, *, key):
        init, step = self._kernel(target)
        state = _step(init, step, state, key)
        return state, HMCInfo(*_info(state))

    def position(self, state):
        return state.z

    def log_density(self, state):
        return -state.potential_energy

    def frozen(self, states) -> Self:
        return _frozen(self, states)

    def _kernel(self, target):
        return _kernel(self, target, "HMC", trajectory_length=self.trajectory_length)


def _check(sampler: NUTS | HMC) -> None:
    if not isinstance(sampler.num_warmup, int) or sampler.num_warmup < 0:
        raise ValueError(f"`num_warmup` must be an integer, 0 or more; got {sampler.num_warmup!r}.")
    if not 0 < sampler.target_accept < 1:
        raise ValueError(f"`target_accept` must lie between 0 and 1; got {sampler.target_accept!r}.")
    if not isinstance(sampler.step_size, Tracer) and not 0 < sampler.step_size < np.inf:
        raise ValueError(f"`step_size` must be positive and finite; got {sampler.step_size!r}.")
    matrix = sampler.inverse_mass_matrix
    if matrix is None:
        return
    if (ndim := np.ndim(matrix)) != 1 + sampler.dense_mass:
        expected = "a covariance (dim, dim)" if sampler.dense_mass else "variances (dim,)"
        raise ValueError(
            f"`inverse_mass_matrix` must hold {expected} as dense_mass={sampler.dense_mass}; got {ndim} dimensions."
        )
    if not isinstance(matrix, Tracer) and not _is_covariance(np.asarray(matrix, np.float64)):
        expected = "a symmetric positive definite matrix" if sampler.dense_mass else "positive and finite variances"
        raise ValueError(f"`inverse_mass_matrix` must hold {expected}; got\n{np.asarray(matrix)}.")


def _is_covariance(matrix: np.ndarray) -> bool:
    if not np.isfinite(matrix).all():
        return False
    if matrix.ndim == 1:
        return bool(np.all(matrix > 0))
    rounding = 1e-5 * np.abs(matrix).max(initial=0)
    symmetric = matrix.shape[0] == matrix.shape[1] and np.allclose(matrix, matrix.T, atol=rounding)
    return bool(symmetric and np.all(np.linalg.eigvalsh(matrix) > 0))


def _check_size(matrix: Array | None, position: PyTree) -> None:
    dim = sum(np.size(leaf) for leaf in jax.tree.leaves(position))
    if matrix is not None and (came := np.shape(matrix)) != (expected := (dim,) * len(came)):
        raise ValueError(f"`inverse_mass_matrix` must have shape {expected} for this target; got {came}.")


def _kernel(sampler: NUTS | HMC, target, algo: str, **settings: Any):
    """NumPyro's closures, made afresh in every trace: a kernel object that lives on would keep an old schedule."""
    init_kernel, step = hmc(potential_fn=lambda u: -target.log_density(u), algo=algo)
    adapts = sampler.num_warmup > 0
    matrix = sampler.inverse_mass_matrix
    if matrix is not None:  # it may come from a run of another precision
        matrix = jnp.asarray(matrix, dtype=jnp.result_type(float))

    def init(params, key):
        return init_kernel(
            params,
            num_warmup=sampler.num_warmup,
            step_size=sampler.step_size,  # pyright: ignore[reportArgumentType]
            inverse_mass_matrix=matrix,
            adapt_step_size=adapts,
            adapt_mass_matrix=adapts,
            dense_mass=sampler.dense_mass,
            target_accept_prob=sampler.target_accept,
            rng_key=key,
            **settings,
        )

    return init, step


def _step(init, step, state: HMCState, key: PRNGKeyArray) -> HMCState:
    # The closure learns its settings only by being initialised. Handing it the potential and its gradient keeps that
    # from evaluating them; what it returns is thrown away, and with it all that XLA finds unused.
    from numpyro.infer.util import ParamInfo

    init(ParamInfo(state.z, state.potential_energy, state.z_grad), key)
    return _without_keys(step(state._replace(rng_key=key)))


def _without_keys(state: HMCState) -> HMCState:
    return state._replace(rng_key=None, adapt_state=state.adapt_state._replace(rng_key=None))


def _info(state: HMCState) -> tuple:
    return (
        -state.potential_energy,
        state.energy,
        state.accept_prob,
        state.diverging,
        state.num_steps,
        state.adapt_state.step_size,
    )


def _bit_length(number: Int[Array, ""]) -> Int[Array, ""]:
    # floor(log2) + 1, in whole numbers: in float32, log2(8192) is a little less than 13.
    return (32 - jax.lax.clz(number.astype(jnp.int32))).astype(number.dtype)


def _frozen(sampler, states: PyTree):
    if sampler.num_warmup == 0:
        return sampler
    # Chains agree on one kernel: the geometric mean of their step sizes, the mean of their mass matrices.
    adapted = jax.tree.map(np.asarray, states.adapt_state)
    step_size = jnp.asarray(np.exp(np.mean(np.log(adapted.step_size))))
    matrix = jnp.asarray(np.mean(adapted.inverse_mass_matrix, axis=0))
    return eqx.tree_at(
        lambda s: (s.num_warmup, s.step_size, s.inverse_mass_matrix),
        sampler,
        (0, step_size, matrix),
        is_leaf=lambda leaf: leaf is None,
    )
