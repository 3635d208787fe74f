"""Two sections of `posterax demo`: real data, an approximation corrected, NUTS, and the exact answer beside them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from posterax import Draw, Draws, EssBelow, Infer, Move, Resample, Reweight, sample, warm_up

from ._nuts import NUTS
from ._svi import SVI


def eight_schools(report: Any) -> None:
    """The eight schools of Rubin (1981)."""
    from posterax_models import eight_schools

    _infer(report, eight_schools(), names=("mu", "tau", "theta"), key=jr.key(1981))


def nile(report: Any) -> None:
    """The flow of the Nile, 1871 to 1970."""
    from posterax_models import nile

    problem = nile()
    draws = _infer(report, problem, names=("sigma_obs", "sigma_level"), key=jr.key(1871))
    report.picture("level", lambda path: _plot_level(path, problem, draws), "The level of the Nile, smoothed.")


def _infer(report: Any, problem: Any, *, names: Sequence[str], key) -> Draws:
    """A guide fitted, reweighted and moved; NUTS; both beside the exact answer."""
    target = problem.target
    keys = jr.split(key, 5)
    report.say("checking the target: values, gradients, bijection")
    target.check(key=keys[0])

    report.say("fitting a multivariate normal by stochastic variational inference")
    fitted = SVI().fit(target, key=keys[1])
    report.say("warming up NUTS")
    kernel = warm_up(NUTS(num_warmup=500), target, key=keys[2])

    report.say("pipeline: Infer >> Draw >> Reweight")
    weigh = Infer(fitted) >> Draw(8_000) >> Reweight(target)
    weighted = weigh.run(key=keys[3])
    report.say(
        f"the guide's draws are worth {weighted.effective_sample_size():.0f} of {weighted.num_draws}; "
        f"Pareto k-hat {weighted.pareto_k():.2f} (below 0.7 is good)"
    )
    evidence = float(weighted.log_evidence[0])
    relative = np.sqrt(1 / weighted.effective_sample_size() - 1 / weighted.num_draws)
    report.compare_draws("Reweighted guide, against the exact posterior", weighted, problem, names[:2])
    report.compare("Evidence", [("log evidence", evidence, float(relative), float(problem.log_evidence))])

    report.say("pipeline: ... >> Resample >> Move by the warmed NUTS")
    moved = (Resample(when=EssBelow(0.9)) >> Move(kernel, target, steps=10)).run(weighted, key=keys[3])
    # Copies have moved apart, yet not independently: no standard error is claimed.
    report.compare_draws("Resampled and moved, against the exact posterior", moved, problem, names[:2])

    report.say("NUTS: 4 chains of 2,000 draws")
    draws = sample(NUTS(num_warmup=1000, target_accept=0.95), target, num_draws=2_000, key=keys[4])
    report.compare_draws("NUTS, against the exact posterior", draws, problem, names)
    tree = draws.to_datatree(target, log_likelihood=True, prior=500, posterior_predictive=True)
    report.results(tree, var_names=names)
    return draws


def _plot_level(path: Any, problem: Any, draws: Draws) -> None:
    import matplotlib.pyplot as plt

    mean, low, high = _level(problem, draws)
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    axes.fill_between(problem.years, low, high, alpha=0.3, label="level, 90 % interval", color="C0", linewidth=0)
    axes.plot(problem.years, mean, color="C0", label="level, mean")
    axes.plot(problem.years, problem.observed, ".", color="0.3", label="annual flow")
    axes.set(xlabel="year", ylabel=r"flow of the Nile at Aswan ($10^8$ m$^3$)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _level(problem: Any, draws: Draws) -> tuple[np.ndarray, ...]:
    """Mean and central 90 % interval of each year's level, parameters integrated out: one exact path a draw."""
    from posterax_models import LinearGaussianStateSpace

    one = jnp.ones((1, 1))

    def path(sigma_obs, sigma_level, key):
        model = LinearGaussianStateSpace(
            jnp.array([1000.0]), 500.0**2 * one, one, sigma_level**2 * one, one, sigma_obs**2 * one
        )
        return model.sample_path(jnp.asarray(problem.observed)[:, None], key=key)[:, 0]

    chosen = {name: draws[name].ravel()[::16] for name in ("sigma_obs", "sigma_level")}
    keys = jr.split(draws.next_key, len(chosen["sigma_obs"]))
    paths = np.asarray(jax.jit(jax.vmap(path))(chosen["sigma_obs"], chosen["sigma_level"], keys))
    return paths.mean(axis=0), *np.quantile(paths, [0.05, 0.95], axis=0)
