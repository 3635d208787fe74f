"""The border to ArviZ: every call of it, and every difference between its versions, is in here."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from ._draws import Draws, flatten_chains
from ._keys import check_key, named, numbered
from ._labels import Labels

_QUANTILES = (0.05, 0.5, 0.95)


def to_datatree(
    draws: Draws,
    target: Any,
    *,
    log_likelihood: bool,
    prior: int,
    posterior_predictive: bool,
    key: PRNGKeyArray | None,
):
    """See `Draws.to_datatree`."""
    import arviz_base

    if target is None and (log_likelihood or prior or posterior_predictive):
        raise ValueError("`target` is needed for log_likelihood, prior and posterior_predictive. Pass the Target.")
    random: Any = _key_for(key, draws, prior or posterior_predictive or draws.log_weights is not None)
    attributes: dict[str, Any] = {
        "history": json.dumps(draws.history),
        "result": draws.result_code,
        "created_by": "posterax",
    }
    groups: dict[str, Mapping[str, np.ndarray]] = {}
    posterior = draws
    if draws.log_weights is not None:
        groups["weighted_posterior"] = {**draws.values, "log_weights": draws.log_weights}
        posterior = draws.resample(key=named(random, "resample"))
        attributes["posterior_is"] = f"systematic resample of {posterior.num_draws} from weighted_posterior"
        attributes["effective_sample_size"] = float(draws.effective_sample_size())
        attributes["pareto_k"] = float(draws.pareto_k())
    elif draws.dependent:
        attributes["posterior_is"] = "resampled: draws of a chain may be copies of each other"
    if draws.log_evidence is not None:
        attributes["log_evidence"] = json.dumps(np.asarray(draws.log_evidence, dtype=float).tolist())
    groups["posterior"] = posterior.values
    labels = draws.labels
    if draws.stats:
        same_axis = all(np.shape(stat)[:2] == draws.shape for stat in draws.stats.values())
        groups["sample_stats" if same_axis else "step_stats"] = draws.stats
    if target is not None:
        labels = target.labels
        if observed := target.observed():
            groups["observed_data"] = {name: np.asarray(value) for name, value in observed.items()}
    if log_likelihood:
        groups["log_likelihood"] = _log_likelihood(target, posterior)
    if posterior_predictive:
        groups["posterior_predictive"] = _predictive(target, posterior, named(random, "predictive"))
    if prior:
        groups["prior"], groups["prior_predictive"] = _prior(target, prior, named(random, "prior"))
    return _build(arviz_base, groups, labels, attributes)


def _key_for(key: Any, draws: Draws, needed: Any) -> Any:
    if key is not None:
        return check_key(key, "Draws.to_datatree")
    if not needed:
        return None
    try:
        return draws.next_key  # what is drawn for a result belongs to the result: no second key to keep
    except ValueError as error:
        raise ValueError(
            "`key` is needed to draw predictions or a resample. Pass `key=jax.random.key(...)`."
        ) from error


def _build(arviz_base, groups: Mapping[str, Mapping], labels: Labels, attributes: Mapping[str, Any]):
    data, dims = {}, {}
    for group, values in groups.items():
        data[group] = {name.replace("/", "."): _plain(value) for name, value in values.items()}
        lead = 0 if group == "observed_data" else 2
        for name, value in data[group].items():
            names = labels.dims.get(name)
            if names and len(names) == np.ndim(value) - lead:
                dims[name] = names
    coords = {name: points for name, points in labels.coords.items() if any(name in used for used in dims.values())}
    kept = {name: value for name, value in data.items() if value}
    tree = arviz_base.from_dict(kept, coords=coords, dims=dims)
    for group in kept:
        tree[group].attrs.update(attributes)
    return tree


def _plain(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name in {"bfloat16", "float16"} else array


@eqx.filter_jit
def _pointwise(target, values):
    return jax.vmap(jax.vmap(lambda v: target.log_likelihood(target.unconstrain(v))))(values)


def _log_likelihood(target, draws: Draws) -> dict[str, np.ndarray]:
    terms = _pointwise(target, _latent(target, draws))
    if not terms:
        raise ValueError(
            "`log_likelihood` was asked for, but the target has no pointwise terms: it was made from one log density. "
            "Make it with `log_prior=` and `log_likelihood=`, or with `Target.from_numpyro`."
        )
    return {name: np.asarray(value, dtype=np.float64) for name, value in terms.items()}


@eqx.filter_jit
def _simulate(target, values, keys):
    return jax.vmap(lambda v, k: target.sample_predictive(v, key=k))(values, keys)


def _predictive(target, draws: Draws, key) -> dict[str, np.ndarray]:
    flat = flatten_chains(_latent(target, draws))
    simulated = _simulate(target, flat, numbered(key, draws.num_chains * draws.num_draws))
    return {name: np.asarray(v).reshape(*draws.shape, *v.shape[1:]) for name, v in simulated.items()}


@eqx.filter_jit
def _prior_values(target, keys):
    return jax.vmap(lambda k: target.constrain(target.sample_prior(key=k)))(keys)


def _prior(target, num: int, key) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    values = _prior_values(target, numbered(named(key, "values"), num))
    latent = {name: values[name] for name in target.structure.latent}
    simulated = {}
    if target.structure.observed or getattr(target.density, "simulate", None) is not None:
        simulated = _simulate(target, latent, numbered(named(key, "observations"), num))
    lead = lambda tree: {name: np.asarray(value)[None] for name, value in tree.items()}  # noqa: E731
    return lead(values), lead(simulated)


def _latent(target, draws: Draws) -> dict:
    return {name: jnp.asarray(draws.values[name]) for name in target.structure.latent}


def for_installed_arviz(tree: Any) -> Any:
    """`tree` as the installed `arviz` wants it: as it is from 1.0 on, InferenceData before."""
    import arviz

    if sys.version_info >= (3, 12) and hasattr(arviz, "convert_to_datatree"):
        return tree
    if hasattr(arviz, "from_datatree"):
        return arviz.from_datatree(tree)
    return tree


def summary(draws: Draws):
    """See `Draws.summary`."""
    import pandas as pd

    means, sds = draws.mean(), draws.sd()
    quantiles = draws.quantile(np.asarray(_QUANTILES))
    trusted = draws.log_weights is None and not draws.dependent
    figures = _convergence(draws) if trusted else {}
    rows = {}
    for name, mean in means.items():
        for index in np.ndindex(mean.shape):
            row = {"mean": mean[index], "sd": sds[name][index]}
            row |= {f"q{round(100 * q):02d}": quantiles[name][(i, *index)] for i, q in enumerate(_QUANTILES)}
            row |= {figure: values[name][index] for figure, values in figures.items()}
            rows[entry_name(name, index, draws.labels)] = row
    table = pd.DataFrame.from_dict(rows, orient="index")
    if not trusted:
        table.attrs |= {"ess": draws.effective_sample_size(), "pareto_k": draws.pareto_k()}
    return table


def entry_name(name: str, index: tuple, labels: Labels) -> str:
    """A scalar's name: variable and labels, or numbers where an axis has none."""
    dims = labels.dims.get(name, [])
    parts = [
        str(labels.coords[dims[axis]][i]) if len(dims) == len(index) and dims[axis] in labels.coords else str(i)
        for axis, i in enumerate(index)
    ]
    return f"{name}[{', '.join(parts)}]" if parts else name


def _convergence(draws: Draws) -> dict[str, dict[str, np.ndarray]]:
    """MCSE, ESS and R-hat of each scalar. NaN where there are too few draws or chains to say."""
    return {
        "mcse_mean": _figure(draws, "mcse", method="mean"),
        "ess_bulk": _figure(draws, "ess", method="bulk"),
        "ess_tail": _figure(draws, "ess", method="tail"),
        "r_hat": _figure(draws, "rhat"),
    }


def mcse(draws: Draws) -> dict[str, dict[str, np.ndarray]]:
    """Monte-Carlo standard errors of the means and standard deviations of each scalar.

    For unweighted chains ArviZ's; for weighted draws the delta method's. NaN for copies made by resampling.
    """
    if draws.log_weights is None and not draws.dependent:
        return {"mean": _figure(draws, "mcse", method="mean"), "sd": _figure(draws, "mcse", method="sd")}
    if draws.dependent:
        nothing = {name: np.full(value.shape[2:], np.nan) for name, value in draws.values.items()}
        return {"mean": nothing, "sd": nothing}
    from . import weights
    from ._precision import precision

    with precision(64):
        flat, log_weights = flatten_chains(draws.values), draws.flat_log_weights()
        means, sds = draws.mean(), draws.sd()
        of_mean = {name: np.asarray(weights.mcse_of_mean(x.astype(float), log_weights)) for name, x in flat.items()}
        squares = {name: (x - means[name]) ** 2 for name, x in flat.items()}
        of_variance = {name: np.asarray(weights.mcse_of_mean(x, log_weights)) for name, x in squares.items()}
    # d sd = d variance / (2 sd)
    return {"mean": of_mean, "sd": {name: of_variance[name] / (2 * sds[name]) for name in flat}}


def _figure(draws: Draws, figure: str, **options: Any) -> dict[str, np.ndarray]:
    import arviz_base
    import arviz_stats

    data = {name: np.asarray(value, dtype=float) for name, value in draws.values.items()}
    values = getattr(arviz_stats, figure)(arviz_base.from_dict({"posterior": data}), **options)
    values = values["posterior"] if "posterior" in getattr(values, "children", {}) else values
    return {name: np.asarray(values[name]) for name in data}


def bulk_ess(draws: Draws) -> dict[str, np.ndarray]:
    """ArviZ's bulk effective sample size of each scalar of unweighted chains."""
    return _figure(draws, "ess", method="bulk")


def rhat(draws: Draws) -> dict[str, np.ndarray]:
    """ArviZ's rank-normalised split R-hat of each scalar of unweighted chains."""
    return _figure(draws, "rhat")


def save_plot(tree: Any, kind: str, path: Any, *, var_names: Sequence[str] | None = None) -> None:
    """Draw one of ArviZ's plots of a DataTree into a PNG file.

    - `kind`: "trace", "rank", "forest", or another of arviz_plots' `plot_...`.
    - `var_names`: which variables.

    Raises `ValueError` for a plot that the installed ArviZ does not have.
    """
    import arviz_plots
    import matplotlib
    import matplotlib.pyplot as plt

    plot = getattr(arviz_plots, f"plot_{kind}", None)
    if plot is None:
        raise ValueError(f"`kind` must name one of arviz_plots' plots; the installed one has no plot_{kind}.")
    with matplotlib.rc_context({"figure.dpi": 110}):
        names = None if var_names is None else list(var_names)
        thin = {"visuals": {"trace": {"width": 0.4, "alpha": 0.7}}} if kind == "trace" else {}
        plot(tree, var_names=names, backend="matplotlib", **thin)
        figure = plt.gcf()
        figure.tight_layout()  # ArviZ lets titles of several lines run into the plots above
        figure.savefig(path, bbox_inches="tight")
        plt.close(figure)


def pit_tree(u: Mapping[str, np.ndarray]):
    """Values that should be uniform, `(n,)` by name, as the group `prior_sbc` that `plot_ecdf_pit` takes."""
    import arviz_base

    return arviz_base.from_dict({"prior_sbc": {name.replace("/", "."): np.asarray(x)[None] for name, x in u.items()}})


def write_netcdf(tree: Any, path: Any) -> None:
    """Write a DataTree to a netCDF file."""
    tree.to_netcdf(path, engine="h5netcdf")


def psis(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Pareto-smoothed, normalised log-weights and k-hat; `log_weights`: (n,), finite.

    ArviZ takes minus the log-weights (as leave-one-out has it, the log-likelihoods), in 0.8 and in 1.x alike.
    """
    from arviz_stats.base import array_stats

    with np.errstate(all="ignore"):  # nearly equal weights make its fit divide by zero, and k-hat says the rest
        smoothed, k = array_stats.psislw(-np.asarray(log_weights, dtype=np.float64))
    return np.asarray(smoothed), float(k)
