"""Sequential Monte Carlo: particle filters, entropic annealing, particle Gibbs, tempering and importance sampling."""

from typing import TYPE_CHECKING

from posterax.plugin import ComponentSpec, DemoSpec, PluginInfo, hookimpl, lazy

if TYPE_CHECKING:
    from ._conditional import conditional_sweep as conditional_sweep
    from ._feynman_kac import FeynmanKac as FeynmanKac
    from ._filter import EntropicParticleFilter as EntropicParticleFilter
    from ._filter import FilterState as FilterState
    from ._filter import ParticleFilter as ParticleFilter
    from ._forms import Auxiliary as Auxiliary
    from ._forms import Bootstrap as Bootstrap
    from ._forms import Guided as Guided
    from ._forms import Proposal as Proposal
    from ._gibbs import ParticleGibbs as ParticleGibbs
    from ._history import History as History
    from ._importance import Importance as Importance
    from ._look_ahead import LookAhead as LookAhead
    from ._marginal import ParticleMarginal as ParticleMarginal
    from ._posterior import state_space_target as state_space_target
    from ._random_walk import RandomWalk as RandomWalk
    from ._run import Filtered as Filtered
    from ._run import forecast as forecast
    from ._run import run_filter as run_filter
    from ._run import smooth as smooth
    from ._schedules import BaseSchedule as BaseSchedule
    from ._schedules import DelayedSchedule as DelayedSchedule
    from ._schedules import EntropySchedule as EntropySchedule
    from ._schedules import EssSchedule as EssSchedule
    from ._schedules import Schedule as Schedule
    from ._schedules import TargetEssSchedule as TargetEssSchedule
    from ._selection import Selection as Selection
    from ._selection import select as select
    from ._state_space import StateSpaceModel as StateSpaceModel
    from ._tempered import TemperedSMC as TemperedSMC
    from ._twisted import Twisted as Twisted

_HOMES = {
    "_conditional": ("conditional_sweep",),
    "_feynman_kac": ("FeynmanKac",),
    "_filter": ("EntropicParticleFilter", "FilterState", "ParticleFilter"),
    "_forms": ("Auxiliary", "Bootstrap", "Guided", "Proposal"),
    "_gibbs": ("ParticleGibbs",),
    "_history": ("History",),
    "_importance": ("Importance",),
    "_look_ahead": ("LookAhead",),
    "_marginal": ("ParticleMarginal",),
    "_posterior": ("state_space_target",),
    "_random_walk": ("RandomWalk",),
    "_run": ("Filtered", "forecast", "run_filter", "smooth"),
    "_schedules": (
        "BaseSchedule",
        "DelayedSchedule",
        "EntropySchedule",
        "EssSchedule",
        "Schedule",
        "TargetEssSchedule",
    ),
    "_selection": ("Selection", "select"),
    "_state_space": ("StateSpaceModel",),
    "_tempered": ("TemperedSMC",),
    "_twisted": ("Twisted",),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _HOMES)


# Parts of the samplers: published so that files may hold them, and others may list and extend them.
_PARTS = {
    ("feynman-kac", "_forms"): [
        ("bootstrap", "Bootstrap", "A state-space model filtered by its own moves."),
        ("guided", "Guided", "A state-space model filtered by a proposal that looks at the observation."),
        ("auxiliary", "Auxiliary", "A model whose ancestors are drawn with an eye on what comes next."),
    ],
    ("feynman-kac", "_twisted"): [
        ("twisted", "Twisted", "A model whose moves and weights look ahead by a guess of what is to come."),
    ],
    ("schedule", "_schedules"): [
        ("ess-schedule", "EssSchedule", "Temperature by the effective sample size: the published default."),
        ("entropy-schedule", "EntropySchedule", "Temperature by the entropy of the weights."),
        ("base-schedule", "BaseSchedule", "Temperature by progress alone."),
        ("delayed-schedule", "DelayedSchedule", "No selection before a share of the steps: the plainest control."),
        ("target-ess-schedule", "TargetEssSchedule", "The least flattening that leaves a given effective sample size."),
    ],
    ("look-ahead", "_look_ahead"): [
        ("look-ahead", "LookAhead", "Scouts one step ahead, by which ancestors are drawn."),
    ],
}  # fmt: skip
_LANGUAGE = {
    "step-method": [
        ("step-filter", "_filter:StepFilter", "Particle filter over steps of text: PF and ePF."),
        ("step-gibbs", "_gibbs:StepGibbs", "Particle Gibbs over steps of text."),
        ("best-of-n", "_baselines:BestOfN", "Independent answers, the best by its reward, or a weighted vote."),
        ("self-consistency", "_baselines:SelfConsistency", "Independent answers and a vote, without a reward."),
        ("beam-search", "_baselines:BeamSearch", "The best texts go on, each in several ways."),
    ],
    "language-model": [
        ("openai-server", "_openai:OpenAIModel", "Any server that speaks OpenAI's chat or completions protocol."),
        ("jax-decoder", "_in_process:JaxModel", "A Llama or Qwen2 decoder in this process."),
        ("callable-model", "_model:CallableModel", "A Python function."),
    ],
    "reward": [
        ("http-reward", "_scorer:HTTPReward", "A scorer behind HTTP, such as vLLM's score, classify or pooling."),
        ("self-certainty", "_scorer:SelfCertainty", "The language model's own log-probabilities."),
        ("callable-reward", "_reward:CallableReward", "A Python function."),
    ],
}  # fmt: skip
_SMC = "Chopin and Papaspiliopoulos (2020), An Introduction to Sequential Monte Carlo"
_EPF = "Giannone et al. (2025), arXiv:2510.05825"
_PMCMC = "Andrieu, Doucet and Holenstein (2010), doi:10.1111/j.1467-9868.2009.00736.x"


@hookimpl
def posterax_plugin_info():
    return PluginInfo("Sequential Monte Carlo: filters, smoothers, tempering, particle MCMC, language models.")


@hookimpl
def posterax_components():
    return [
        ComponentSpec(
            "particle-filter",
            kind="sampler",
            target="posterax_particles._filter:ParticleFilter",
            summary="Particle filter for any Feynman-Kac model: bootstrap, guided, auxiliary, with look-ahead.",
            tags={"exact", "population"},
            source=_SMC,
            example="posterax_particles._examples:particle_filter",
        ),
        ComponentSpec(
            "entropic-particle-filter",
            kind="sampler",
            target="posterax_particles._filter:EntropicParticleFilter",
            summary="Particle filter that flattens weights early on, with or without correction.",
            tags={"exact", "population"},
            source=_EPF,
            example="posterax_particles._examples:entropic",
        ),
        ComponentSpec(
            "particle-gibbs",
            kind="sampler",
            target="posterax_particles._gibbs:ParticleGibbs",
            summary="States and parameters of a state-space model by conditional sequential Monte Carlo.",
            tags={"adaptive", "exact"},
            source=_PMCMC,
            example="posterax_particles._examples:particle_gibbs",
        ),
        ComponentSpec(
            "particle-marginal",
            kind="sampler",
            target="posterax_particles._marginal:ParticleMarginal",
            summary="Parameters of a state-space model by Metropolis on the filter's unbiased likelihood.",
            tags={"adaptive", "auxiliary", "exact"},
            source=_PMCMC,
            example="posterax_particles._examples:particle_marginal",
        ),
        ComponentSpec(
            "tempered-smc",
            kind="sampler",
            target="posterax_particles._tempered:TemperedSMC",
            summary="From prior to posterior by adaptive temperatures and moves of any sampler, with evidence.",
            tags={"exact", "population"},
            source="Del Moral, Doucet and Jasra (2006), doi:10.1111/j.1467-9868.2006.00553.x",
            example="posterax_particles._examples:tempered",
        ),
        ComponentSpec(
            "importance",
            kind="sampler",
            target="posterax_particles._importance:Importance",
            summary="Importance sampling with Pareto-smoothed weights, from the prior or any proposal.",
            tags={"exact", "population"},
            source="Vehtari et al. (2024), http://jmlr.org/papers/v25/19-556.html",
            example="posterax_particles._examples:importance",
        ),
        ComponentSpec(
            "random-walk",
            kind="sampler",
            target="posterax_particles._random_walk:RandomWalk",
            summary="Metropolis with normal steps that learn their covariance: needs no gradient.",
            tags={"adaptive", "exact"},
            source="Haario, Saksman and Tamminen (2001), doi:10.2307/3318737",
            example="posterax_particles._examples:random_walk",
        ),
        *(
            ComponentSpec(name, kind=kind, target=f"posterax_particles.{module}:{target}", summary=summary)
            for (kind, module), parts in _PARTS.items()
            for name, target, summary in parts
        ),
        *(
            ComponentSpec(name, kind=kind, target=f"posterax_particles.language.{target}", summary=summary)
            for kind, parts in _LANGUAGE.items()
            for name, target, summary in parts
        ),
    ]


@hookimpl
def posterax_demos():
    return [
        DemoSpec(
            "particles",
            target="posterax_particles._demo:filters",
            summary="The level of the Nile by particle filters, and two modes by tempering.",
        ),
        DemoSpec(
            "language",
            target="posterax_particles._demo_language:language",
            summary="Particle filters over the texts of a small language model.",
        ),
    ]
