"""The Nile: a hundred years of flow, two unknown standard deviations, and their exact posterior."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpyro
import numpyro.distributions as dist
from posterax import Target

from ._local_level import local_level_log_likelihood, local_level_predictions
from ._problem import ExactAnswers
from ._quadrature import mixture_moments, posterior_nodes

_FIRST_YEAR = 1871
# fmt: off
_FLOW = (
    1120, 1160, 963, 1210, 1160, 1160, 813, 1230, 1370, 1140,
    995, 935, 1110, 994, 1020, 960, 1180, 799, 958, 1140,
    1100, 1210, 1150, 1250, 1260, 1220, 1030, 1100, 774, 840,
    874, 694, 940, 833, 701, 916, 692, 1020, 1050, 969,
    831, 726, 456, 824, 702, 1120, 1100, 832, 764, 821,
    768, 845, 864, 862, 698, 845, 744, 796, 1040, 759,
    781, 865, 845, 944, 984, 897, 822, 1010, 771, 676,
    649, 846, 812, 742, 801, 1040, 860, 874, 848, 890,
    744, 749, 838, 1050, 918, 986, 797, 923, 975, 815,
    1020, 906, 901, 1170, 912, 746, 919, 718, 714, 740,
)
# fmt: on
# Scales of the priors, in 10^8 m^3. The flow itself varies by 169 about its mean of 919.
_OBS_SCALE = 200.0
_LEVEL_SCALE = 100.0
_LEVEL_MEAN = 1000.0
_LEVEL_SD = 500.0


def nile_model(flow):
    """The NumPyro model of `nile`: the level is integrated out, so only two numbers remain."""
    sigma_obs = numpyro.sample("sigma_obs", dist.HalfNormal(_OBS_SCALE))
    sigma_level = numpyro.sample("sigma_level", dist.HalfNormal(_LEVEL_SCALE))
    mean, sd = local_level_predictions(flow, sigma_obs, sigma_level, level_mean=_LEVEL_MEAN, level_sd=_LEVEL_SD)
    with numpyro.plate("time", flow.shape[0]):
        numpyro.sample("flow", dist.Normal(mean, sd), obs=flow)


def nile_exact(flow: np.ndarray, *, num_nodes: int = 200) -> ExactAnswers:
    """The posterior of `nile_model` by the trapezium rule on the logs of the two standard deviations.

    - `flow`: shape `(time,)`, in 10^8 m^3.
    - `num_nodes`: along each axis, from 0.1 to 600 10^8 m^3. On logs the integrand vanishes smoothly at both
      ends, and the rule converges geometrically; 200 nodes give the Nile's answers to 8 digits.
    """
    log_obs = np.linspace(np.log(0.1), np.log(600.0), num_nodes)[:, None]
    log_level = np.linspace(np.log(0.1), np.log(600.0), num_nodes)[None, :]
    sigma_obs, sigma_level = np.exp(log_obs), np.exp(log_level)
    log_likelihood = local_level_log_likelihood(
        flow, sigma_obs, sigma_level, level_mean=_LEVEL_MEAN, level_sd=_LEVEL_SD
    )
    log_prior = _log_half_normal(sigma_obs, _OBS_SCALE) + _log_half_normal(sigma_level, _LEVEL_SCALE)
    cell = (log_obs[1, 0] - log_obs[0, 0]) * (log_level[0, 1] - log_level[0, 0])
    # The sigmas themselves are the Jacobian of the step to logs.
    probs, log_evidence = posterior_nodes(log_likelihood + log_prior, log_obs + log_level + np.log(cell))
    moments = {
        "sigma_obs": mixture_moments(probs.sum(1), sigma_obs[:, 0], np.zeros(num_nodes)),
        "sigma_level": mixture_moments(probs.sum(0), sigma_level[0], np.zeros(num_nodes)),
    }
    means = {name: mean for name, (mean, _) in moments.items()}
    return ExactAnswers(means, {name: sd for name, (_, sd) in moments.items()}, log_evidence)


def _log_half_normal(x: np.ndarray, scale: float) -> np.ndarray:
    return 0.5 * np.log(2 / np.pi) - np.log(scale) - 0.5 * (x / scale) ** 2


@dataclass(frozen=True, eq=False)
class Nile:
    """The Nile's flow with the exact posterior of its local level model; made by `nile`.

    - `observed`: annual flow, shape `(100,)`, in 10^8 m^3.
    - `years`: 1871 to 1970, shape `(100,)`.
    - `mean`, `sd`: exact, of the scalars `sigma_obs` and `sigma_level`, in 10^8 m^3.
    - `log_evidence`: exact, in nats.
    """

    target: Target
    observed: np.ndarray
    years: np.ndarray
    mean: Mapping[str, np.ndarray]
    sd: Mapping[str, np.ndarray]
    log_evidence: float
    source: str = "Durbin and Koopman (2012), Time Series Analysis by State Space Methods, 2nd edition, chapter 2"


def nile() -> Nile:
    r"""Annual flow of the Nile at Aswan, 1871 to 1970, as a local level seen in noise.

    $y_t = \ell_t + N(0, \sigma_{obs})$, $\ell_{t+1} = \ell_t + N(0, \sigma_{level})$, in $10^8 m^3$, with
    $\sigma_{obs} \sim$ half-normal(200), $\sigma_{level} \sim$ half-normal(100) and $\ell_1 \sim N(1000,
    500)$. The level is integrated out by the Kalman filter; samplers move in `sigma_obs` and `sigma_level`.

    The pointwise log-likelihood has one term a year: the density of that year's flow *given all earlier
    years*. These terms are sequential, not exchangeable: PSIS-LOO on them estimates nothing of use, sums over
    the last years do.

    Source: Durbin and Koopman (2012), section 2.2; data of Cobb (1978), doi:10.1093/biomet/65.2.243.
    """
    flow = np.array(_FLOW, np.float64)
    years = np.arange(_FIRST_YEAR, _FIRST_YEAR + flow.size)
    target = Target.from_numpyro(nile_model, flow, coords={"time": years.tolist()})
    return Nile(target, flow, years, *nile_exact(flow))
