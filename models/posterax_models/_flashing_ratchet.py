"""The discrete flashing ratchet: a Markov jump process driven out of equilibrium by switching a potential."""

from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float


class RatchetSettings(NamedTuple):
    """What rates of six states say of a ratchet."""

    potential: float
    switching: float
    hopping: float


class FlashingRatchet(eqx.Module):
    r"""Three sites on a ring and a potential that is on (states 0 to 2: heights 0, V, 2 V) or off (states 3 to 5).

    On: $f_{ij} = e^{-V (j - i) / 2}$ between any two sites. Off: rate b between any two sites. Between on and off: rate
    r. Temperature 1. At V > 0 it keeps producing entropy.

    - `potential`: V. `switching`: r. `hopping`: b.

    Source: Ajdari and Prost (1992); Roldán and Parrondo (2010), doi:10.1103/PhysRevLett.105.150607; settings of
    Berghaus et al. (2024), arXiv:2406.06419, section 4.1.
    """

    potential: float = 1.0
    switching: float = 1.0
    hopping: float = 1.0

    def __check_init__(self):
        for name in ("switching", "hopping"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive; got {getattr(self, name)!r}.")

    @property
    def rates(self) -> Float[np.ndarray, "6 6"]:
        """Off the diagonal, which is 0; row: from, column: to."""
        site = np.arange(3)
        rates = np.zeros((6, 6))
        rates[:3, :3] = np.exp(-self.potential / 2 * (site - site[:, None]))
        rates[3:, 3:] = self.hopping
        rates[site, site + 3] = rates[site + 3, site] = self.switching
        np.fill_diagonal(rates, 0.0)
        return rates

    @property
    def generator(self) -> Float[np.ndarray, "6 6"]:
        """Rates with the diagonal that makes rows sum to 0."""
        return self.rates - np.diag(self.rates.sum(1))

    @property
    def stationary_law(self) -> Float[np.ndarray, " 6"]:
        """Of the six states."""
        equations = np.vstack([self.generator.T, np.ones(6)])
        return np.linalg.lstsq(equations, np.eye(7)[6], rcond=None)[0]

    @property
    def entropy_production(self) -> float:
        """At stationarity, nats per unit of time."""
        flow = self.stationary_law[:, None] * self.rates
        both = flow > 0
        return float(np.sum(flow[both] * np.log(flow[both] / flow.T[both])))

    @staticmethod
    def settings_of(rates: Float[np.ndarray, "6 6"]) -> RatchetSettings:
        """V, r and b of six states' rates: means, and for V of slopes of log rates over all pairs of sites."""
        rates = np.asarray(rates, float)
        logs, site = np.log(rates[:3, :3] + np.eye(3)), np.arange(3)
        slope = -2 * (logs[0, 1] + logs[1, 2]) + 2 * (logs[1, 0] + logs[2, 1]) - logs[0, 2] + logs[2, 0]
        switching = np.concatenate([rates[site, site + 3], rates[site + 3, site]]).mean()
        return RatchetSettings(float(slope / 6), float(switching), float(rates[3:, 3:][~np.eye(3, dtype=bool)].mean()))
