"""Five posteriors of posteriordb: models from the statements of its README, and its reference beside our draws.

The models keep the statements' own parameters, badly scaled or not. `SETTINGS` says what the bad scales need: a dense
mass matrix where intercept and slope are correlated (to 0.99 and more in kidiq and earnings), and double precision,
because log densities of thousands of nats leave single precision three digits for the energy error.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpyro
import numpyro.distributions as dist
from posterax import Draws, Plan, Target
from posterax._arviz import mcse
from posterax_models import EIGHT_SCHOOLS_REFERENCE, eight_schools
from posterax_numpyro import NUTS

NUM_REFERENCE = 10_000  # independent draws behind each figure of the database


def flat(support_of):
    """An improper prior, constant on the support of a distribution: a density of one, whatever the distribution's."""
    return support_of.mask(False)


def kidiq_model(kid_score, mom_iq):
    beta = numpyro.sample("beta", flat(dist.Normal().expand((2,)).to_event(1)))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    numpyro.sample("kid_score", dist.Normal(beta[0] + beta[1] * mom_iq, sigma), obs=kid_score)


def ark_model(y, num_lags):
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand((num_lags,)).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    mean = alpha + sum(beta[k] * y[num_lags - 1 - k : y.shape[0] - 1 - k] for k in range(num_lags))
    numpyro.sample("y", dist.Normal(mean, sigma), obs=y[num_lags:])


def sblri_model(y, x):
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand((x.shape[1],)).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(10.0))
    numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


def earnings_model(log_earn, height):
    beta = numpyro.sample("beta", flat(dist.Normal().expand((2,)).to_event(1)))
    sigma = numpyro.sample("sigma", flat(dist.HalfNormal()))
    numpyro.sample("log_earn", dist.Normal(beta[0] + beta[1] * height, sigma), obs=log_earn)


FILES = {
    "eight_schools": "eight_schools-eight_schools_noncentered",
    "kidiq": "kidiq-kidscore_momiq",
    "arK": "arK-arK",
    "sblri": "sblri-blr",
    "earnings": "earnings-logearn_height",
}


class Settings(NamedTuple):
    """What reaches a bulk effective sample size of 10,000."""

    sampler: NUTS
    num_draws: int
    plan: Plan
    num_chains: int = 10


SETTINGS = {
    "eight_schools": Settings(NUTS(num_warmup=500, target_accept=0.95), 2_500, Plan()),
    "kidiq": Settings(NUTS(num_warmup=1000, dense_mass=True), 2_500, Plan(precision=64)),
    "arK": Settings(NUTS(num_warmup=1000, dense_mass=True), 2_000, Plan(precision=64)),
    # Posterior variances are 1e-6: the warm-up's regularisation of the mass matrix, 5e-3 / (n + 5), is larger still, so
    # steps are short and draws of sigma correlated.
    "sblri": Settings(NUTS(num_warmup=1000, dense_mass=True), 7_000, Plan(precision=64)),
    "earnings": Settings(NUTS(num_warmup=1000, dense_mass=True), 4_000, Plan(precision=64)),
}


def problem(name: str, folder: Path | None = None) -> tuple[Target, dict[str, tuple[float, float]]]:
    """The posterior `name` (a key of `FILES`), and the database's (mean, sd) of each parameter.

    - `folder`: the one with the database's files; the eight schools need none.
    """
    if name == "eight_schools":
        return eight_schools().target, dict(EIGHT_SCHOOLS_REFERENCE)
    assert folder is not None, f"{name} needs the folder of posteriordb"
    content = json.loads((folder / f"{FILES[name]}.json").read_text())
    data = {key: np.asarray(value, float) for key, value in content["data"].items() if isinstance(value, list)}
    match name:
        case "kidiq":
            target = Target.from_numpyro(kidiq_model, data["kid_score"], data["mom_iq"])
        case "arK":
            target = Target.from_numpyro(ark_model, data["y"], content["data"]["K"])
        case "sblri":
            target = Target.from_numpyro(sblri_model, data["y"], data["X"])
        case "earnings":
            target = Target.from_numpyro(earnings_model, np.log(data["earn"]), data["height"])
    return target, {parameter: (entry["mean"], entry["sd"]) for parameter, entry in content["reference"].items()}


def entry(values, parameter: str):
    """The entry of `values`, arrays by site with any leading axes, that the database calls `parameter`.

    It counts from one: `theta[1]` is the first along the last axis of the site `theta`.
    """
    site, _, number = parameter.partition("[")
    return values[site][..., int(number[:-1]) - 1] if number else values[site]


class Row(NamedTuple):
    """One figure of a comparison."""

    name: str
    figure: str  # "mean" or "sd"
    ours: float
    reference: float
    z: float  # difference in combined standard errors


def compare(draws: Draws, reference: dict[str, tuple[float, float]]) -> list[Row]:
    """Means and standard deviations of unweighted chains beside those of `NUM_REFERENCE` independent draws.

    Our standard errors are ArviZ's. The reference's are sd / sqrt(n) for a mean and sd sqrt((kurtosis - 1) / 4n) for a
    standard deviation, with the kurtosis of our draws.
    """
    errors = mcse(draws)
    rows = []
    for name, (mean, sd) in reference.items():
        x = np.asarray(entry(draws.values, name), float)
        kurtosis = np.mean((x - x.mean()) ** 4) / x.var() ** 2
        figures = {
            "mean": (x.mean(), mean, sd / np.sqrt(NUM_REFERENCE)),
            "sd": (x.std(), sd, sd * np.sqrt((kurtosis - 1) / (4 * NUM_REFERENCE))),
        }
        for figure, (ours, theirs, their_error) in figures.items():
            error = np.hypot(float(entry(errors[figure], name)), their_error)
            rows.append(Row(name, figure, float(ours), theirs, float((ours - theirs) / error)))
    return rows
