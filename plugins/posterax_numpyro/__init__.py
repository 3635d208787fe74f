"""NumPyro's own kernels and guides behind posterax's interfaces: NUTS, HMC and variational inference."""

from typing import TYPE_CHECKING

from posterax.plugin import ComponentSpec, DemoSpec, PluginInfo, hookimpl, lazy

if TYPE_CHECKING:
    from ._nuts import HMC as HMC
    from ._nuts import NUTS as NUTS
    from ._svi import SVI as SVI

__all__ = ["HMC", "NUTS", "SVI"]
__getattr__, __dir__ = lazy(__name__, {"_nuts": ("HMC", "NUTS"), "_svi": ("SVI",)})


@hookimpl
def posterax_plugin_info():
    return PluginInfo("NumPyro's kernels and guides behind posterax's interfaces.", url="https://num.pyro.ai")


@hookimpl
def posterax_components():
    return [
        ComponentSpec(
            "nuts",
            kind="sampler",
            target="posterax_numpyro._nuts:NUTS",
            summary="No-U-Turn sampler: Hamiltonian Monte Carlo that finds its own trajectory length.",
            tags={"adaptive", "exact", "needs-gradient"},
            source="Hoffman and Gelman (2014), https://jmlr.org/papers/v15/hoffman14a.html",
            example="posterax_numpyro._examples:nuts",
        ),
        ComponentSpec(
            "hmc",
            kind="sampler",
            target="posterax_numpyro._nuts:HMC",
            summary="Hamiltonian Monte Carlo with trajectories of fixed length.",
            tags={"adaptive", "exact", "needs-gradient"},
            source="Neal (2011), MCMC using Hamiltonian dynamics, arXiv:1206.1901",
            example="posterax_numpyro._examples:hmc",
        ),
        ComponentSpec(
            "svi",
            kind="estimator",
            target="posterax_numpyro._svi:SVI",
            summary="Stochastic variational inference: the nearest distribution of a chosen family.",
            tags={"approximate", "bias=0.1", "fits-target", "needs-gradient"},
            source="Kucukelbir et al. (2017), https://jmlr.org/papers/v18/16-107.html",
            example="posterax_numpyro._examples:svi",
        ),
    ]


@hookimpl
def posterax_demos():
    return [
        DemoSpec(
            "eight-schools",
            target="posterax_numpyro._demo:eight_schools",
            summary="A hierarchical model of eight schools, sampled by NUTS.",
        ),
        DemoSpec(
            "nile",
            target="posterax_numpyro._demo:nile",
            summary="The level of the Nile, 1871 to 1970, and when it changed.",
        ),
    ]
