"""Distribution transformers: Bayesian inference in milliseconds, with the prior as an input, checked at call time."""

from typing import TYPE_CHECKING

from posterax.plugin import ComponentSpec, DemoSpec, PluginInfo, hookimpl, lazy

if TYPE_CHECKING:
    from ._algebra import cdf as cdf
    from ._algebra import conditional as conditional
    from ._algebra import from_log_cholesky as from_log_cholesky
    from ._algebra import linear_update as linear_update
    from ._algebra import log_cholesky as log_cholesky
    from ._algebra import marginal as marginal
    from ._algebra import moment_match as moment_match
    from ._algebra import moments as moments
    from ._algebra import push_forward as push_forward
    from ._algebra import quantile as quantile
    from ._calibration import Calibration as Calibration
    from ._calibration import calibrate as calibrate
    from ._correct import Defended as Defended
    from ._correct import correct as correct
    from ._correct import hand_off as hand_off
    from ._correct import posterior_target as posterior_target
    from ._dynamics import Dynamics as Dynamics
    from ._dynamics import LinearDynamics as LinearDynamics
    from ._dynamics import SigmaPoints as SigmaPoints
    from ._dynamics import SigmaPointUpdate as SigmaPointUpdate
    from ._estimator import DistributionTransformer as DistributionTransformer
    from ._experiments import LengthScale as LengthScale
    from ._experiments import LinearGaussian as LinearGaussian
    from ._experiments import NormalVariance as NormalVariance
    from ._experiments import QuantumParameter as QuantumParameter
    from ._filter import Filtered as Filtered
    from ._filter import filter_mixture as filter_mixture
    from ._filter import split as split
    from ._fusion import BearingRange as BearingRange
    from ._grid import GridPosterior as GridPosterior
    from ._grid import grid_posterior as grid_posterior
    from ._grid import log_density_at as log_density_at
    from ._meta_prior import MixtureMetaPrior as MixtureMetaPrior
    from ._mixture import Components as Components
    from ._mixture import components_of as components_of
    from ._mixture import gaussian_mixture as gaussian_mixture
    from ._mixture import mixture_of as mixture_of
    from ._objective import ExpectedForwardKL as ExpectedForwardKL
    from ._pretrained import PRETRAINED as PRETRAINED
    from ._pretrained import card as card
    from ._pretrained import pretrained as pretrained
    from ._problem import InferenceProblem as InferenceProblem
    from ._problem import Rows as Rows
    from ._range import Outside as Outside

_HOMES = {
    "_algebra": (
        "cdf",
        "conditional",
        "from_log_cholesky",
        "linear_update",
        "log_cholesky",
        "marginal",
        "moment_match",
        "moments",
        "push_forward",
        "quantile",
    ),
    "_calibration": ("Calibration", "calibrate"),
    "_correct": ("Defended", "correct", "hand_off", "posterior_target"),
    "_dynamics": ("Dynamics", "LinearDynamics", "SigmaPoints", "SigmaPointUpdate"),
    "_estimator": ("DistributionTransformer",),
    "_experiments": ("LengthScale", "LinearGaussian", "NormalVariance", "QuantumParameter"),
    "_filter": ("Filtered", "filter_mixture", "split"),
    "_fusion": ("BearingRange",),
    "_grid": ("GridPosterior", "grid_posterior", "log_density_at"),
    "_meta_prior": ("MixtureMetaPrior",),
    "_mixture": ("Components", "components_of", "gaussian_mixture", "mixture_of"),
    "_objective": ("ExpectedForwardKL",),
    "_pretrained": ("PRETRAINED", "card", "pretrained"),
    "_problem": ("InferenceProblem", "Rows"),
    "_range": ("Outside",),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _HOMES)

_SOURCE = "Whittle, Ziomek, Rawling and Osborne (2025), arXiv:2502.02463"

# Parts of a trained estimator: published so that files may hold them.
_PARTS = {
    "dt-network": ("_network:Network", "From numbers of prior and data to those of a mixture."),
    "dt-block": ("_network:Block", "A layer with attention."),
    "dt-mixing": ("_network:Mixing", "A layer of attention among rows of data."),
    "dt-pooled": ("_network:Pooled", "A layer of deep sets."),
    "dt-attention": ("_network:Attention", "Attention of tokens to a memory."),
    "dt-perceptron": ("_network:Perceptron", "Two dense layers."),
    "dt-norm": ("_network:Norm", "Normalises rows."),
    "dt-spec": ("_spec:Spec", "What a network expects."),
    "dt-scales": ("_spec:Scales", "Units of what a network sees and tells."),
    "dt-units": ("_tokens:Units", "Centre and size of numbers."),
    "dt-defended": ("_correct:Defended", "An estimator whose answers are mixed with the prior."),
    "dt-range": ("_range:Range", "What a network has seen in training."),
}


@hookimpl
def posterax_plugin_info():
    return PluginInfo("Distribution transformers: amortised inference with the prior as an input, checked when called.")


@hookimpl
def posterax_components():
    return [
        ComponentSpec(
            "distribution-transformer",
            kind="estimator",
            target="posterax_distribution_transformer._estimator:DistributionTransformer",
            summary="Posterior mixtures of normals in one pass of a network; the prior is an input.",
            tags={"approximate", "bias=0.1"},
            source=_SOURCE,
            example="posterax_distribution_transformer._examples:variance",
        ),
        ComponentSpec(
            "expected-forward-kl",
            kind="objective",
            target="posterax_distribution_transformer._objective:ExpectedForwardKL",
            summary="How unlikely true latents are under inferred mixtures: the expected forward divergence.",
            tags={"proper"},
            source=_SOURCE,
            example="posterax_distribution_transformer._examples:divergence",
        ),
    ] + [
        ComponentSpec(name, kind="network-part", target=f"posterax_distribution_transformer.{target}", summary=summary)
        for name, (target, summary) in _PARTS.items()
    ]


@hookimpl
def posterax_demos():
    return [
        DemoSpec(
            "amortised",
            target="posterax_distribution_transformer._demo:amortised",
            summary="A prior swapped on the fly, posteriors in milliseconds, beside the exact ones.",
        )
    ]
