"""Eight schools: the hierarchical model that every sampler is tried on, with its exact answer."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpyro
import numpyro.distributions as dist
from posterax import Target

from ._problem import ExactAnswers
from ._quadrature import mixture_moments, posterior_nodes

_SCHOOLS = ("A", "B", "C", "D", "E", "F", "G", "H")
_EFFECT = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
_STANDARD_ERROR = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)
_MU_SD = 5.0
_TAU_SCALE = 5.0


def eight_schools_model(y, sigma):
    """The NumPyro model of `eight_schools`, non-centred."""
    mu = numpyro.sample("mu", dist.Normal(0.0, _MU_SD))
    tau = numpyro.sample("tau", dist.HalfCauchy(_TAU_SCALE))
    with numpyro.plate("school", y.shape[0]):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * eta)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def eight_schools_exact(y: np.ndarray, sigma: np.ndarray, *, num_nodes: int = 100) -> ExactAnswers:
    r"""The posterior of `eight_schools_model` by quadrature over $\tau$; all else is Gaussian given $\tau$.

    - `y`, `sigma`: effects and their standard errors, shape `(schools,)`.
    - `num_nodes`: of the Gauss-Legendre rule on $u = (2/\pi) \arctan(\tau / 5)$, which the half-Cauchy prior
      makes uniform on (0, 1). For the eight schools 50 nodes already give 12 digits.

    Given $\tau$, $y_j \sim N(\mu, \sigma_j^2 + \tau^2)$ with $\theta_j$ integrated out, so $\mu$ is a
    conjugate normal mean; given $\mu$ too, $\theta_j$ and $\eta_j$ are conjugate. The answers have `mu`,
    `tau`, `eta` and `theta`.
    """
    y, sigma = np.asarray(y, np.float64), np.asarray(sigma, np.float64)
    if y.ndim != 1 or y.size < 2 or sigma.shape != y.shape:
        raise ValueError(
            f"`y` and `sigma` must have the same shape (schools,) with at least 2 schools; got {y.shape} and "
            f"{sigma.shape}. (With one school the variance of tau is infinite.)"
        )
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    tau = _TAU_SCALE * np.tan(np.pi / 4 * (nodes + 1))[:, None]

    # p(y | tau), and mu given tau and y; the rule's axis comes first.
    total = sigma**2 + tau**2
    mu_var = 1 / (1 / _MU_SD**2 + (1 / total).sum(1))
    mu_mean = mu_var * (y / total).sum(1)
    quadratic = (y**2 / total).sum(1) - mu_mean**2 / mu_var
    log_det = np.log(2 * np.pi * total).sum(1) + np.log(_MU_SD**2 / mu_var)
    probs, log_evidence = posterior_nodes(-0.5 * (log_det + quadratic), np.log(weights / 2))

    # theta_j = pull * y_j + (1 - pull) * mu + noise; eta_j = (theta_j - mu) / tau.
    pull = tau**2 / total
    theta_mean = pull * y + (1 - pull) * mu_mean[:, None]
    theta_var = pull * sigma**2 + (1 - pull) ** 2 * mu_var[:, None]
    eta_mean = tau / total * (y - mu_mean[:, None])
    eta_var = sigma**2 / total + (tau / total) ** 2 * mu_var[:, None]
    moments = {
        "mu": mixture_moments(probs, mu_mean, mu_var),
        "tau": mixture_moments(probs, tau[:, 0], np.zeros(num_nodes)),
        "eta": mixture_moments(probs, eta_mean, eta_var),
        "theta": mixture_moments(probs, theta_mean, theta_var),
    }
    means = {name: mean for name, (mean, _) in moments.items()}
    return ExactAnswers(means, {name: sd for name, (_, sd) in moments.items()}, log_evidence)


@dataclass(frozen=True, eq=False)
class EightSchools:
    """The eight schools with their exact posterior; made by `eight_schools`.

    - `observed`: estimated effect of coaching in each school, shape `(8,)`, in points of the SAT-V score.
    - `sigma`: standard errors of these estimates, taken as known, shape `(8,)`, in points.
    - `schools`: their names.
    - `mean`, `sd`: exact, by site: scalars `mu` and `tau`, and `eta` and `theta` of shape `(8,)`.
    - `log_evidence`: exact, in nats.
    """

    target: Target
    observed: np.ndarray
    sigma: np.ndarray
    schools: tuple[str, ...]
    mean: Mapping[str, np.ndarray]
    sd: Mapping[str, np.ndarray]
    log_evidence: float
    source: str = "Rubin (1981), doi:10.3102/10769986006004377; priors as in posteriordb's eight_schools_noncentered"


def eight_schools() -> EightSchools:
    r"""Coaching in eight schools: $y_j \sim N(\theta_j, \sigma_j)$, $\theta_j = \mu + \tau \eta_j$.

    $\mu \sim N(0, 5)$, $\tau \sim$ half-Cauchy(0, 5), $\eta_j \sim N(0, 1)$: the non-centred form, with
    `theta` a deterministic site and the schools A to H along the axis `school`. Samplers move in `mu`, `tau`
    and `eta`.

    Source: Rubin (1981), doi:10.3102/10769986006004377, table 1; Gelman et al. (2013), section 5.5.
    """
    y, sigma = np.array(_EFFECT), np.array(_STANDARD_ERROR)
    target = Target.from_numpyro(eight_schools_model, y, sigma, coords={"school": _SCHOOLS})
    return EightSchools(target, y, sigma, _SCHOOLS, *eight_schools_exact(y, sigma))
