"""Schedules of entropic annealing: how much the weights are flattened before ancestors are drawn by them."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from posterax.weights import effective_sample_size, entropy

_HALVINGS = 30


class Schedule(eqx.Module):
    """Says at what inverse temperature, from 0 (all alike) to 1 (as they are), weights are resampled."""

    @abc.abstractmethod
    def inverse_temperature(self, log_weights: Float[Array, " n"], progress: Float[Array, ""]) -> Float[Array, ""]:
        """The inverse temperature for these weights, at `progress` from 0 (beginning) to 1 (end)."""


class _Early(Schedule):
    """A schedule that acts early in a run, where the effective sample size is low.

    - `ess_threshold`: it acts below this share of the particles, strictly.
    - `early_phase`: and before this share of the steps.
    """

    ess_threshold: float = 0.5
    early_phase: float = 0.5

    def __check_init__(self):
        for name in ("ess_threshold", "early_phase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie in [0, 1]; got {getattr(self, name)!r}.")

    def inverse_temperature(self, log_weights, progress):
        """That of the published rule where it acts, else 1."""
        ess = effective_sample_size(log_weights)
        acts = (ess / log_weights.size < self.ess_threshold) & (progress < self.early_phase)
        flattened = jnp.minimum(self._rule(log_weights, ess, progress), 1.0)
        return jnp.where(acts, flattened, 1.0).astype(log_weights.dtype)

    @abc.abstractmethod
    def _rule(self, log_weights, ess, progress) -> Array: ...


class EssSchedule(_Early):
    r"""Temperature $\max(1, (N / \mathrm{ESS}) (1 - s))$ at progress s: the default of entropic particle filtering.

    - `ess_threshold`, `early_phase`: it acts where ESS / N is below the first and progress below the second.

    Source: Giannone et al. (2025), arXiv:2510.05825; thresholds as in its authors' code. With two particles it never
    acts, since ESS / 2 is at least one half.
    """

    def _rule(self, log_weights, ess, progress):
        return ess / (log_weights.size * jnp.maximum(1 - progress, 1e-9))


class EntropySchedule(_Early):
    r"""Inverse temperature $h + (1 - h) s$ at progress s, with h the entropy of the weights over $\log N$.

    - `ess_threshold`, `early_phase`, source: as in `EssSchedule`.
    """

    def _rule(self, log_weights, ess, progress):
        h = entropy(log_weights)
        return h + (1 - h) * progress


class BaseSchedule(_Early):
    """Temperature 2 - s at progress s, whatever the weights.

    - `ess_threshold`, `early_phase`, source: as in `EssSchedule`.
    """

    def _rule(self, log_weights, ess, progress):
        return 1 / (2 - progress)


class TargetEssSchedule(Schedule):
    """The least flattening that leaves an effective sample size of `share` of the particles, found by bisection.

    - `share`: in (0, 1]. Where too few particles have any weight, all that have one become alike.
    - `early_phase`: it acts before this share of the steps.
    """

    share: float = 0.5
    early_phase: float = 1.0

    def __check_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"`share` must lie in (0, 1]; got {self.share!r}.")
        if not 0 <= self.early_phase <= 1:
            raise ValueError(f"`early_phase` must lie in [0, 1]; got {self.early_phase!r}.")

    def inverse_temperature(self, log_weights, progress):
        """The largest inverse temperature with that effective sample size."""
        found = inverse_temperature_of(log_weights, self.share * log_weights.size)
        return jnp.where(progress < self.early_phase, found, 1.0).astype(log_weights.dtype)


def inverse_temperature_of(log_weights: Float[Array, " n"], ess: float) -> Float[Array, ""]:
    """The largest inverse temperature in [0, 1] at which the weights have this effective sample size; 0 for none."""

    def size(inverse):
        flattened = jnp.where(jnp.isneginf(log_weights), -jnp.inf, inverse * log_weights)
        return effective_sample_size(flattened)

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        enough = size(middle) >= ess
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    one = jnp.ones((), log_weights.dtype)
    low, _ = jax.lax.fori_loop(0, _HALVINGS, halve, (jnp.zeros_like(one), one))
    return jnp.where(size(one) >= ess, one, low)


class DelayedSchedule(Schedule):
    """No selection before a share of the steps: weights are flattened wholly, then not at all.

    The plainest cure for early overconfidence, and what we recommend: at equal tokens it solved more of our reasoning
    task than any published schedule, whatever the overconfidence of the reward. Uncorrected, rewards before that are
    forgotten; with residual weights they come back at once when the time has come.

    - `early_phase`: it acts before this share of the steps; 1 for never selecting.
    """

    early_phase: float = 0.5

    def __check_init__(self):
        if not 0 <= self.early_phase <= 1:
            raise ValueError(f"`early_phase` must lie in [0, 1]; got {self.early_phase!r}.")

    def inverse_temperature(self, log_weights, progress):
        """0 or 1."""
        return jnp.where(progress < self.early_phase, 0.0, 1.0).astype(log_weights.dtype)
