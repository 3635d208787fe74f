"""Language models as state-space models: particle filters over steps of text, baselines, budgets, servers."""

from typing import TYPE_CHECKING

from posterax.plugin import lazy

if TYPE_CHECKING:
    from ._baselines import BeamSearch as BeamSearch
    from ._baselines import BestOfN as BestOfN
    from ._baselines import SelfConsistency as SelfConsistency
    from ._choose import ArgMax as ArgMax
    from ._choose import Majority as Majority
    from ._choose import Sample as Sample
    from ._choose import Selector as Selector
    from ._choose import WeightedVote as WeightedVote
    from ._decoded import DecodedSteps as DecodedSteps
    from ._decoded import TokenPopulation as TokenPopulation
    from ._decoded import filter_tokens as filter_tokens
    from ._ends import AfterTokens as AfterTokens
    from ._ends import AtMatch as AtMatch
    from ._ends import AtString as AtString
    from ._ends import AtToken as AtToken
    from ._ends import StepEnd as StepEnd
    from ._ends import When as When
    from ._filter import StepFilter as StepFilter
    from ._gibbs import StepGibbs as StepGibbs
    from ._ledger import Budget as Budget
    from ._ledger import Ledger as Ledger
    from ._ledger import Spend as Spend
    from ._method import StepMethod as StepMethod
    from ._model import CallableModel as CallableModel
    from ._model import LanguageModel as LanguageModel
    from ._population import Population as Population
    from ._prefix import Prefix as Prefix
    from ._prefix import Step as Step
    from ._reasoning import Reasoning as Reasoning
    from ._reward import CallableReward as CallableReward
    from ._reward import Reward as Reward
    from ._reward import RewardError as RewardError
    from ._solve import Solution as Solution
    from ._solve import solve as solve

_HOMES = {
    "_baselines": ("BeamSearch", "BestOfN", "SelfConsistency"),
    "_choose": ("ArgMax", "Majority", "Sample", "Selector", "WeightedVote"),
    "_decoded": ("DecodedSteps", "TokenPopulation", "filter_tokens"),
    "_ends": ("AfterTokens", "AtMatch", "AtString", "AtToken", "StepEnd", "When"),
    "_filter": ("StepFilter",),
    "_gibbs": ("StepGibbs",),
    "_ledger": ("Budget", "Ledger", "Spend"),
    "_method": ("StepMethod",),
    "_model": ("CallableModel", "LanguageModel"),
    "_population": ("Population",),
    "_prefix": ("Prefix", "Step"),
    "_reasoning": ("Reasoning",),
    "_reward": ("CallableReward", "Reward", "RewardError"),
    "_solve": ("Solution", "solve"),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _HOMES)
