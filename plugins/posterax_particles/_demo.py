"""A section of `posterax demo`: the level of the Nile by particles, beside Kalman's exact answer."""

from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array
from posterax import EssBelow, sample
from posterax_models import BimodalMixture, LinearGaussianStateSpace, nile

from ._filter import ParticleFilter
from ._forms import Bootstrap
from ._run import run_filter, smooth
from ._state_space import StateSpaceModel
from ._tempered import TemperedSMC

_FIRST_YEAR = 1871
_OBS_SD, _LEVEL_SD = 122.9, 38.3  # maximum likelihood: Durbin and Koopman (2012), section 2.10
_POPULATIONS = 50


class LocalLevel(StateSpaceModel):
    """A level that wanders, seen through noise."""

    obs_sd: Array
    level_sd: Array

    def initial(self):
        return dist.Normal(1000.0, jnp.asarray(500.0))

    def transition(self, t, x):
        return dist.Normal(x, self.level_sd)

    def emission(self, t, x):
        return dist.Normal(x, self.obs_sd)


def filters(report: Any) -> None:
    """The Nile's level filtered and smoothed, and a posterior of two modes."""
    flow = jnp.asarray(nile().observed, float).at[40:50].set(jnp.nan)  # ten years are hidden, to be filled in
    model = Bootstrap(LocalLevel(jnp.asarray(_OBS_SD), jnp.asarray(_LEVEL_SD)), flow)
    one = jnp.ones((1, 1))
    kalman = LinearGaussianStateSpace(
        jnp.full(1, 1000.0), 500.0**2 * one, one, _LEVEL_SD**2 * one, one, _OBS_SD**2 * one
    )
    exact, smoothed = kalman.filter(flow[:, None]), kalman.smooth(flow[:, None])

    sampler = ParticleFilter(1000, when=EssBelow(0.5))
    report.say(f"{_POPULATIONS} filters of {sampler.num_particles} particles, ten years of the flow missing")
    draws = sample(sampler, model, num_chains=_POPULATIONS, key=jr.key(0), progress=False)
    assert draws.log_evidence is not None
    ratio = np.exp(np.asarray(draws.log_evidence, float) - float(exact.log_likelihood))
    rows = [("estimated over exact evidence", ratio.mean(), ratio.std(ddof=1) / np.sqrt(len(ratio)), 1.0)]
    for year in (1880, 1915, 1970):
        found = draws.stats["states_mean"][:, year - _FIRST_YEAR]
        error = found.std(ddof=1) / np.sqrt(len(found))
        truth = float(exact.mean[year - _FIRST_YEAR, 0])
        rows.append((f"level {year}, from the years before", float(found.mean()), float(error), truth))
    report.compare("The Nile by particles and by Kalman's filter", rows)

    found = run_filter(ParticleFilter(2000, when=EssBelow(0.5), paths=True), model, key=jr.key(1))
    paths = np.asarray(smooth(found, model, 1000, key=jr.key(2)))
    report.picture(
        "level", lambda path: _plot(path, flow, paths, smoothed, draws),
        "Left: 1,000 paths by backward simulation and Kalman's smoother. Right: how many particles carry weight.",
    )  # fmt: skip

    problem = BimodalMixture()
    report.say("from prior to posterior by temperatures: two modes 16 standard deviations apart")
    tempered = sample(TemperedSMC(500), problem.target, num_chains=20, key=jr.key(3), progress=False)
    assert tempered.log_evidence is not None
    ratio = np.exp(np.asarray(tempered.log_evidence, float) - float(problem.log_evidence))
    share = np.mean(np.asarray(tempered["x"]).sum(axis=-1) > 0, axis=1)
    report.compare(
        "Tempered SMC on two modes",
        [
            ("estimated over exact evidence", ratio.mean(), ratio.std(ddof=1) / np.sqrt(len(ratio)), 1.0),
            ("weight of the greater mode", share.mean(), share.std(ddof=1) / np.sqrt(len(share)), 0.75),
        ],
    )


def _plot(path: Any, flow: Any, paths: np.ndarray, smoothed: Any, draws: Any) -> None:
    import matplotlib.pyplot as plt

    years = _FIRST_YEAR + np.arange(len(flow))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    low, high = np.quantile(paths, [0.05, 0.95], axis=0)
    left.fill_between(years, low, high, alpha=0.3, color="C0", linewidth=0, label="particles, 90 %")
    left.plot(years, paths.mean(axis=0), color="C0", label="particles, mean")
    mean, sd = np.asarray(smoothed.mean[:, 0]), np.sqrt(np.asarray(smoothed.cov[:, 0, 0]))
    left.plot(years, mean, "--", color="0.1", linewidth=1, label="Kalman")
    for side in (-1.645, 1.645):
        left.plot(years, mean + side * sd, ":", color="0.1", linewidth=1)
    left.plot(years, flow, "o", color="0.5", markersize=3, label="flow")
    left.set(xlabel="year", ylabel="10⁸ m³")
    left.legend(frameon=False, fontsize=8)
    right.plot(years, draws.stats["ess"][:5].T, color="C1", alpha=0.6, linewidth=1)
    right.set(xlabel="year", ylabel="effective sample size", ylim=(0, 1050))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
