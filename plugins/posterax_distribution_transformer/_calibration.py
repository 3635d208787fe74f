"""calibrate(): fresh problems, their true latents, and whether these lie where the posteriors say."""

import os

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, PRNGKeyArray
from posterax import check_key
from posterax.testing._statistics import Tests, are_uniform

from ._estimator import DistributionTransformer, posterior_parts
from ._mixture import Components, mixture_of
from ._network import Network
from ._problem import InferenceProblem
from ._range import figures_of
from ._spec import Scales, Spec

_DRAWS = 200  # that a density is ranked among
_LEVEL = 0.01  # of all tests together, for the words
_NOMINAL = (0.5, 0.8, 0.95)


class Calibration(eqx.Module):
    """Where true latents lie in their posteriors, of many fresh problems.

    - `pit`: `(problems, n)`, P(y_i below its true value), of each coordinate of the real numbers y behind the latent:
      uniform where posteriors are right (exact simulation-based calibration).
    - `region`: `(problems,)`, the smallest level whose region of highest density holds the truth, by 200 draws: uniform
      likewise.
    - `log_prob`: `(problems,)`, log density of the true latents' real numbers, in nats.
    - `figures`: of prior and data by name, `(problems,)`, to look at calibration where they are small or large.
    """

    pit: np.ndarray
    region: np.ndarray
    log_prob: np.ndarray
    figures: dict[str, np.ndarray]

    def tests(self, where: np.ndarray | None = None) -> Tests:
        """Of location, spread and shape of each PIT and of the regions; p-values are exact for any number of problems.

        - `where`: `(problems,)`, which problems to look at.
        """
        u = np.column_stack([self.pit, self.region])
        names = [*(f"coordinate {i}" for i in range(self.pit.shape[1])), "region"]
        return are_uniform(names, u if where is None else u[where])

    @property
    def words(self) -> str:
        """What is wrong; or that nothing was found. Blames right posteriors in one of 100 calibrations."""
        found = {"all problems": self.tests().p_value}
        for name, parts in self.thirds().items():
            for part, where in parts.items():
                found[f"problems where {name} is {part}"] = self.tests(where).p_value
        low = {name: p for name, p in found.items() if p < _LEVEL / len(found)}
        if not low:
            return f"Nothing found in {len(self.region)} problems (smallest p = {min(found.values()):.2g})."
        worst = min(low, key=low.__getitem__)
        return f"Posteriors are off in {worst} (p = {low[worst]:.2g}); {len(low)} of {len(found)} parts rang."

    def thirds(self) -> dict[str, dict[str, np.ndarray]]:
        """Problems whose figures are small, middling and large: masks `(problems,)`, by figure."""
        found = {}
        for name, values in self.figures.items():
            low, high = np.nanquantile(values, [1 / 3, 2 / 3])
            parts = {"small": values <= low, "middling": (values > low) & (values < high), "large": values >= high}
            if all(part.sum() >= 50 for part in parts.values()):
                found[name] = parts
        return found

    def coverage(self, levels: tuple[float, ...] = _NOMINAL):
        """How often regions of these levels hold the truth, for all problems and for thirds: a pandas DataFrame.

        "standard_error" is that of each share where the nominal level is right, at the first level.
        """
        import pandas as pd

        rows = {"all problems": np.ones(len(self.region), bool)}
        rows |= {f"{name}: {part}": where for name, parts in self.thirds().items() for part, where in parts.items()}
        table = {
            name: {
                "problems": int(where.sum()),
                **{level: float(np.mean(self.region[where] <= level)) for level in levels},
                "standard_error": float(np.sqrt(levels[0] * (1 - levels[0]) / where.sum())),
            }
            for name, where in rows.items()
        }
        return pd.DataFrame(table).T

    def plot(self, path: str | os.PathLike) -> None:
        """Write a PNG: distribution functions of the PITs less the uniform one, with a band, and coverage."""
        import matplotlib.pyplot as plt

        figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
        n = len(self.region)
        grid = np.linspace(0, 1, 101)
        band = 1.36 / np.sqrt(n)  # of Kolmogorov and Smirnov, 95 %
        left.axhspan(-band, band, color="0.9", label="95 % band if right")
        for i, u in enumerate(self.pit.T):
            left.plot(grid, np.searchsorted(np.sort(u), grid) / n - grid, label=f"coordinate {i}")
        left.set(xlabel="PIT", ylabel="distribution function less uniform", xlim=(0, 1))
        left.legend(frameon=False, fontsize=8)
        error = 1.96 * np.sqrt(grid * (1 - grid) / n)
        right.fill_between(grid, grid - error, grid + error, color="0.85", label="95 % at each level, if right")
        right.plot(grid, [np.mean(self.region <= level) for level in grid], color="C3")
        right.set(xlabel="nominal level", ylabel="share of regions with the truth", xlim=(0, 1), ylim=(0, 1))
        right.legend(frameon=False, fontsize=8, loc="upper left")
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=110)
        plt.close(figure)


def calibrate(
    fitted: DistributionTransformer, problem: InferenceProblem, num: int = 2000, *, key: PRNGKeyArray
) -> Calibration:
    """Whether posteriors are right on average, over fresh draws of a problem: the one trained on, or another one.

    - `num`: problems.

    A posterior that is right on average can be wrong for each problem: calibration does not replace a comparison with
    exact answers, and thirds of the figures help.
    """
    found = _calibrated(fitted.learned(), problem, jr.split(check_key(key, "calibrate"), num))
    arrays = {name: np.asarray(value, float) for name, value in found.items()}
    figures = arrays.pop("figures")
    return Calibration(**arrays, figures=dict(zip(fitted.seen().names, figures.T, strict=True)))


@eqx.filter_jit
def _calibrated(learned: tuple[Network, Spec, Scales], problem: InferenceProblem, keys: Array) -> dict[str, Array]:
    _, spec, scales = learned

    def one(key):
        key_problem, key_draws = jr.split(key)
        prior, latent, observed = problem.draw(key=key_problem)
        encoded, y = spec.encode(prior, observed), spec.real(latent)
        parts = posterior_parts(learned, encoded)
        drawn, here = parts.log_prob(mixture_of(parts).sample(key_draws, (_DRAWS,))), parts.log_prob(y)
        jitter = jr.uniform(jr.fold_in(key_draws, 1))
        region = (jnp.sum(drawn > here) + jitter) / (_DRAWS + 1)
        figures = figures_of(spec, scales, encoded)[1]
        return {"pit": pit(parts, y), "region": region, "log_prob": here, "figures": figures}

    return jax.vmap(one)(keys)


def pit(parts: Components, y: Array) -> Array:
    """P(Y_i <= y_i) of each coordinate `(..., n)`."""
    sd = jnp.sqrt(jnp.diagonal(parts.covariance, axis1=-2, axis2=-1))
    below = ndtr((y[..., None, :] - parts.mean) / sd)
    return jnp.sum(jnp.exp(parts.log_weights)[..., None] * below, -2)
