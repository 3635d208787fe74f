"""Marginalization models: any marginal, any conditional, any order, of laws over discrete variables."""

from typing import TYPE_CHECKING

from posterax.plugin import ComponentSpec, DemoSpec, PluginInfo, hookimpl, lazy

if TYPE_CHECKING:
    from ._architectures import Architecture as Architecture
    from ._architectures import Dense as Dense
    from ._architectures import Lattice as Lattice
    from ._architectures import Sequence as Sequence
    from ._checks import AnswerReport as AnswerReport
    from ._columns import Columns as Columns
    from ._energy import Energy as Energy
    from ._energy_objectives import DetailedBalance as DetailedBalance
    from ._energy_objectives import KullbackLeibler as KullbackLeibler
    from ._estimator import MarginalizationModel as MarginalizationModel
    from ._law import ConditionalLaw as ConditionalLaw
    from ._log_partition import LogPartition as LogPartition
    from ._marginals import Marginals as Marginals
    from ._networks import PartialNetwork as PartialNetwork
    from ._objectives import OrderAgnostic as OrderAgnostic
    from ._objectives import Rows as Rows
    from ._objectives import SelfConsistency as SelfConsistency
    from ._pretrained import PRETRAINED as PRETRAINED
    from ._pretrained import card as card
    from ._pretrained import pretrained as pretrained
    from ._sampling import complete as complete
    from ._sampling import refreshed as refreshed

_HOMES = {
    "_architectures": ("Architecture", "Dense", "Lattice", "Sequence"),
    "_checks": ("AnswerReport",),
    "_columns": ("Columns",),
    "_energy": ("Energy",),
    "_energy_objectives": ("DetailedBalance", "KullbackLeibler"),
    "_estimator": ("MarginalizationModel",),
    "_law": ("ConditionalLaw",),
    "_log_partition": ("LogPartition",),
    "_marginals": ("Marginals",),
    "_networks": ("PartialNetwork",),
    "_objectives": ("OrderAgnostic", "Rows", "SelfConsistency"),
    "_pretrained": ("PRETRAINED", "card", "pretrained"),
    "_sampling": ("complete", "refreshed"),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _HOMES)

_SOURCE = "Liu, Ramadge and Adams (2024), arXiv:2310.12920"

# Parts of a fitted estimator: published so that files may hold them.
_PARTS = {
    "mam-marginals": ("_marginals:Marginals", "Conditionals and marginals by two networks."),
    "mam-dense-network": ("_networks:DenseNetwork", "A residual perceptron on partial assignments."),
    "mam-lattice-network": ("_networks:LatticeNetwork", "Convolutions on partial assignments."),
    "mam-sequence-network": ("_networks:SequenceNetwork", "A transformer on partial assignments."),
    "mam-dense": ("_architectures:Dense", "Settings of a residual perceptron."),
    "mam-lattice": ("_architectures:Lattice", "Settings of convolutions."),
    "mam-sequence": ("_architectures:Sequence", "Settings of a transformer."),
    "mam-columns": ("_columns:Columns", "Names and values of discrete variables."),
    "mam-support": ("_support:Support", "What a model has learned from."),
    "mam-energy": ("_energy:Energy", "A discrete law known up to a constant."),
}


@hookimpl
def posterax_plugin_info():
    return PluginInfo("Marginalization models: any marginal of a discrete law in one pass, from data or an energy.")


@hookimpl
def posterax_components():
    return [
        ComponentSpec(
            "marginalization-model",
            kind="estimator",
            target="posterax_marginalization._estimator:MarginalizationModel",
            summary="Any marginal of discrete variables in one pass of a network, from a table or an energy.",
            tags={"approximate", "bias=0.1", "missing-data"},
            source=_SOURCE,
            example="posterax_marginalization._examples:chain",
        ),
        ComponentSpec(
            "order-agnostic",
            kind="objective",
            target="posterax_marginalization._objectives:OrderAgnostic",
            summary="Likelihood of a random order of the variables: the first stage, masked diffusion's loss.",
            tags={"proper", "stochastic"},
            source="Hoogeboom et al. (2021), arXiv:2110.02037, eq. 5",
            example="posterax_marginalization._examples:likelihood",
        ),
        ComponentSpec(
            "self-consistency",
            kind="objective",
            target="posterax_marginalization._objectives:SelfConsistency",
            summary="Marginals that agree with conditionals: one step, whole orders, or sums over values.",
            tags={"stochastic"},
            source=_SOURCE,
            example="posterax_marginalization._examples:consistency",
        ),
        ComponentSpec(
            "db",
            kind="objective",
            target="posterax_marginalization._energy_objectives:DetailedBalance",
            summary="Consistency with an energy: full assignments held at log f, log Z learned.",
            tags={"stochastic"},
            source="da Silva, Mesquita and Lahlou (2026), arXiv:2609.11538",
            example="posterax_marginalization._examples:balance",
        ),
        ComponentSpec(
            "kl",
            kind="objective",
            target="posterax_marginalization._energy_objectives:KullbackLeibler",
            summary="The published divergence to an energy, by REINFORCE, with consistency as a penalty.",
            tags={"stochastic", "surrogate"},
            source=_SOURCE,
            example="posterax_marginalization._examples:divergence",
        ),
    ] + [
        ComponentSpec(name, kind="network-part", target=f"posterax_marginalization.{target}", summary=summary)
        for name, (target, summary) in _PARTS.items()
    ]


@hookimpl
def posterax_demos():
    return [
        DemoSpec(
            "marginals",
            target="posterax_marginalization._demo:marginals",
            summary="All marginals of a small lattice by a network, beside the exact ones.",
        )
    ]
