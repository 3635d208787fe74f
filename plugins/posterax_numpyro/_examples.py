"""Small instances for the conformance kit: default settings would only make it slower."""

from ._nuts import HMC, NUTS
from ._svi import SVI


def nuts() -> NUTS:
    """NUTS with a short warm-up."""
    return NUTS(num_warmup=300)


def hmc() -> HMC:
    """HMC with a short warm-up."""
    return HMC(num_warmup=300)


def svi() -> SVI:
    """The default guide, a multivariate normal: on the kit's Gaussian problem it can be exact."""
    return SVI(num_steps=2_000)
