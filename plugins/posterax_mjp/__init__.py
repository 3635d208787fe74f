"""Markov jump processes: rates from noisy, sparse paths, exactly by likelihood and at once by a trained network."""

from typing import TYPE_CHECKING

from posterax.plugin import ComponentSpec, DemoSpec, PluginInfo, SubcommandSpec, hookimpl, lazy

if TYPE_CHECKING:
    from ._answers import committors as committors
    from ._answers import entropy_production as entropy_production
    from ._answers import first_passage_times as first_passage_times
    from ._answers import relaxation_times as relaxation_times
    from ._answers import sojourn_times as sojourn_times
    from ._answers import stationary_law as stationary_law
    from ._answers_draws import answers as answers
    from ._answers_draws import generators as generators
    from ._answers_stage import Answer as Answer
    from ._edge_sets import over_edge_sets as over_edge_sets
    from ._emissions import ConfusedLabels as ConfusedLabels
    from ._emissions import Emission as Emission
    from ._emissions import FlippedLabels as FlippedLabels
    from ._emissions import GaussianSignal as GaussianSignal
    from ._emissions import TrueLabels as TrueLabels
    from ._estimator import MJPLikelihood as MJPLikelihood
    from ._fit_checks import chapman_kolmogorov as chapman_kolmogorov
    from ._fit_checks import pearson as pearson
    from ._fit_checks import prevalence as prevalence
    from ._foundation import MJPFoundation as MJPFoundation
    from ._generators import generator as generator
    from ._generators import limit_law as limit_law
    from ._generators import transition_probs as transition_probs
    from ._hidden import likeliest_paths as likeliest_paths
    from ._hidden import state_probs as state_probs
    from ._law_objective import RateLawLikelihood as RateLawLikelihood
    from ._panel import PanelData as PanelData
    from ._plots import plot_intervals as plot_intervals
    from ._plots import plot_prevalence as plot_prevalence
    from ._pooled_rates import PooledRates as PooledRates
    from ._pretrained import card as card
    from ._pretrained import pretrained as pretrained
    from ._prior import ProcessPrior as ProcessPrior
    from ._prior import Seen as Seen
    from ._prior import wide_prior as wide_prior
    from ._prior_edges import AbsorbingEdges as AbsorbingEdges
    from ._prior_edges import BirthDeathEdges as BirthDeathEdges
    from ._prior_edges import CompleteEdges as CompleteEdges
    from ._prior_edges import ConnectedTriangles as ConnectedTriangles
    from ._prior_edges import EdgePrior as EdgePrior
    from ._prior_edges import SymmetricEdges as SymmetricEdges
    from ._prior_grids import GridPrior as GridPrior
    from ._prior_grids import IrregularGrid as IrregularGrid
    from ._prior_grids import LabelFlips as LabelFlips
    from ._prior_grids import MixedGrid as MixedGrid
    from ._prior_grids import RegularGrid as RegularGrid
    from ._prior_rates import BetaRates as BetaRates
    from ._prior_rates import InitialPrior as InitialPrior
    from ._prior_rates import LogNormalRates as LogNormalRates
    from ._prior_rates import LogUniformRates as LogUniformRates
    from ._prior_rates import MixedRates as MixedRates
    from ._prior_rates import RatePrior as RatePrior
    from ._prior_rates import ReversibleRates as ReversibleRates
    from ._process import Jumps as Jumps
    from ._process import Process as Process
    from ._rate_law import RateLaw as RateLaw
    from ._readers import read_dwell_times as read_dwell_times
    from ._readers import read_panel as read_panel
    from ._scores import Scores as Scores
    from ._scores import score as score

_HOMES = {
    "_answers": (
        "committors",
        "entropy_production",
        "first_passage_times",
        "relaxation_times",
        "sojourn_times",
        "stationary_law",
    ),
    "_answers_draws": ("answers", "generators"),
    "_answers_stage": ("Answer",),
    "_edge_sets": ("over_edge_sets",),
    "_emissions": ("ConfusedLabels", "Emission", "FlippedLabels", "GaussianSignal", "TrueLabels"),
    "_estimator": ("MJPLikelihood",),
    "_fit_checks": ("chapman_kolmogorov", "pearson", "prevalence"),
    "_foundation": ("MJPFoundation",),
    "_generators": ("generator", "limit_law", "transition_probs"),
    "_hidden": ("likeliest_paths", "state_probs"),
    "_law_objective": ("RateLawLikelihood",),
    "_panel": ("PanelData",),
    "_plots": ("plot_intervals", "plot_prevalence"),
    "_pooled_rates": ("PooledRates",),
    "_pretrained": ("card", "pretrained"),
    "_prior": ("ProcessPrior", "Seen", "wide_prior"),
    "_prior_edges": (
        "AbsorbingEdges",
        "BirthDeathEdges",
        "CompleteEdges",
        "ConnectedTriangles",
        "EdgePrior",
        "SymmetricEdges",
    ),
    "_prior_grids": ("GridPrior", "IrregularGrid", "LabelFlips", "MixedGrid", "RegularGrid"),
    "_prior_rates": (
        "BetaRates",
        "InitialPrior",
        "LogNormalRates",
        "LogUniformRates",
        "MixedRates",
        "RatePrior",
        "ReversibleRates",
    ),
    "_process": ("Jumps", "Process"),
    "_rate_law": ("RateLaw",),
    "_scores": ("Scores", "score"),
    "_readers": ("read_dwell_times", "read_panel"),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _HOMES)

# Parts of priors and of what is learned: published so that files may hold them, and others may add to them.
_PARTS = {
    "edge-prior": {
        "complete-edges": ("_prior_edges:CompleteEdges", "Every state can jump to every other one."),
        "connected-triangles": ("_prior_edges:ConnectedTriangles", "The paper's random edge sets."),
        "birth-death-edges": ("_prior_edges:BirthDeathEdges", "Jumps between neighbours alone."),
        "symmetric-edges": ("_prior_edges:SymmetricEdges", "Every jump can be undone."),
        "absorbing-edges": ("_prior_edges:AbsorbingEdges", "Some states are never left."),
    },
    "rate-prior": {
        "beta-rates": ("_prior_rates:BetaRates", "The paper's rates: mixtures of Beta laws."),
        "log-normal-rates": ("_prior_rates:LogNormalRates", "Rates of about one order of magnitude."),
        "log-uniform-rates": ("_prior_rates:LogUniformRates", "Rates of all orders of magnitude."),
        "pooled-rates": ("_pooled_rates:PooledRates", "Rates that resemble one another."),
        "reversible-rates": ("_prior_rates:ReversibleRates", "Rates in detailed balance."),
        "mixed-rates": ("_prior_rates:MixedRates", "All rates of a process from one of several laws."),
    },
    "initial-prior": {"initial-prior": ("_prior_rates:InitialPrior", "Stationary, or nearly uniform.")},
    "grid-prior": {
        "regular-grid": ("_prior_grids:RegularGrid", "Every s-th point."),
        "irregular-grid": ("_prior_grids:IrregularGrid", "Random points, others for each path."),
        "mixed-grid": ("_prior_grids:MixedGrid", "One of several kinds of grids."),
        "label-flips": ("_prior_grids:LabelFlips", "Wrong labels."),
    },
    "emission": {
        "true-labels": ("_emissions:TrueLabels", "States are seen as they are."),
        "flipped-labels": ("_emissions:FlippedLabels", "Labels that may be wrong, by a share known or not."),
        "confused-labels": ("_emissions:ConfusedLabels", "Labels that may be wrong, by a known matrix."),
        "gaussian-signal": ("_emissions:GaussianSignal", "A noisy signal around a level of each state."),
    },
    "knowledge": {
        "mjp-knowledge": ("_knowledge:Knowledge", "What a fit by likelihood has learned."),
        "mjp-posterior": ("_fit:Posterior", "A likelihood of panel data with a prior."),
        "mjp-panel-likelihood": ("_likelihood:Likelihood", "The exact likelihood of panel data."),
        "mjp-rate-model": ("_rate_model:RateModel", "How rates depend on parameters."),
        "mjp-intervals": ("_intervals:Intervals", "Different steps of time in panel data."),
        "mjp-transitions": ("_intervals:Transitions", "Pairs of known states."),
        "mjp-sequences": ("_intervals:Sequences", "Rows of each subject."),
        "mjp-rows": ("_emissions:Rows", "Rows as emissions read them."),
    },
    "network-part": {
        "mjp-pair-encoder": ("_encoder:PairEncoder", "Layers on pairs of states, whatever their names."),
        "mjp-path-encoder": ("_path_encoder:PathEncoder", "The paper's network, which reads paths."),
        "mjp-summaries": ("_summaries:Summaries", "What a network is told of transitions."),
        "mjp-examples": ("_training_data:Examples", "Simulated processes with their summaries."),
    },
    "distribution": {"mjp-rate-law": ("_rate_law:RateLaw", "Which jumps can be made, and how fast they are.")},
    "stage": {"mjp-answer": ("_answers_stage:Answer", "Passage times and all else that follows from rates.")},
    "panel-data": {"panel-data": ("_panel:PanelData", "Who was seen in which state, and when.")},
    "process-prior": {"process-prior": ("_prior:ProcessPrior", "A law of processes and of what is seen of them.")},
}


@hookimpl
def posterax_plugin_info():
    return PluginInfo("Markov jump processes: rates from noisy, sparse paths, with what practitioners read off them.")


@hookimpl
def posterax_components():
    return [
        ComponentSpec(
            "mjp-likelihood",
            kind="estimator",
            target="posterax_mjp._estimator:MJPLikelihood",
            summary="Rates from panel data by the exact likelihood: maximum, Laplace or NUTS.",
            tags={"approximate", "bias=0.1"},
            source="Kalbfleisch and Lawless (1985), JASA 80(392)",
            example="posterax_mjp._examples:panel",
        ),
        ComponentSpec(
            "mjp-foundation",
            kind="estimator",
            target="posterax_mjp._foundation:MJPFoundation",
            summary="Rates from snapshots at once, by a network trained on simulated processes.",
            tags={"approximate", "bias=0.1"},
            source="Berghaus et al. (2024), arXiv:2406.06419",
            example="posterax_mjp._examples:at_once",
        ),
        ComponentSpec(
            "rate-law-likelihood",
            kind="objective",
            target="posterax_mjp._law_objective:RateLawLikelihood",
            summary="Log density that an inferred law of rates gives to simulated ones.",
            tags={"proper"},
            source="Papamakarios and Murray (2016), arXiv:1605.06376",
            example="posterax_mjp._examples:law_of_rates",
        ),
    ] + [
        ComponentSpec(name, kind=kind, target=f"posterax_mjp.{target}", summary=summary)
        for kind, parts in _PARTS.items()
        for name, (target, summary) in parts.items()
    ]


@hookimpl
def posterax_subcommands():
    return [SubcommandSpec("mjp", target="posterax_mjp._command:configure", summary="Fit Markov jump processes.")]


@hookimpl
def posterax_demos():
    return [
        DemoSpec(
            "ratchet",
            target="posterax_mjp._demo:ratchet",
            summary="Rates of a molecular motor at once, polished by the likelihood, beside the truth.",
        )
    ]
