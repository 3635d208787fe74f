"""Language models as state-space models: particle filters over steps of text, baselines, budgets, servers."""

from typing import TYPE_CHECKING

from posterax.plugin import lazy

if TYPE_CHECKING:
    from ._baselines import BeamSearch as BeamSearch
    from ._baselines import BestOfN as BestOfN
    from ._baselines import SelfConsistency as SelfConsistency
    from ._capabilities import Capabilities as Capabilities
    from ._choose import ArgMax as ArgMax
    from ._choose import Majority as Majority
    from ._choose import Sample as Sample
    from ._choose import Selector as Selector
    from ._choose import WeightedVote as WeightedVote
    from ._decoded import DecodedSteps as DecodedSteps
    from ._decoded import TokenPopulation as TokenPopulation
    from ._decoded import Written as Written
    from ._decoded import filter_tokens as filter_tokens
    from ._ends import AfterTokens as AfterTokens
    from ._ends import AtMatch as AtMatch
    from ._ends import AtString as AtString
    from ._ends import AtToken as AtToken
    from ._ends import StepEnd as StepEnd
    from ._ends import When as When
    from ._filter import StepFilter as StepFilter
    from ._generate import Generated as Generated
    from ._generate import PrefixCache as PrefixCache
    from ._generate import generate as generate
    from ._gibbs import StepGibbs as StepGibbs
    from ._in_process import Characters as Characters
    from ._in_process import JaxModel as JaxModel
    from ._ledger import Budget as Budget
    from ._ledger import Ledger as Ledger
    from ._ledger import Spend as Spend
    from ._method import StepMethod as StepMethod
    from ._model import CallableModel as CallableModel
    from ._model import LanguageModel as LanguageModel
    from ._openai import OpenAIModel as OpenAIModel
    from ._population import Population as Population
    from ._prefix import Prefix as Prefix
    from ._prefix import Step as Step
    from ._pretrained import Tokenizer as Tokenizer
    from ._pretrained import load_decoder as load_decoder
    from ._pretrained import load_tokenizer as load_tokenizer
    from ._reasoning import Reasoning as Reasoning
    from ._replay import Recorder as Recorder
    from ._replay import Replayed as Replayed
    from ._replay import ReplayError as ReplayError
    from ._reward import CallableReward as CallableReward
    from ._reward import Reward as Reward
    from ._reward import RewardError as RewardError
    from ._scorer import HTTPReward as HTTPReward
    from ._scorer import SelfCertainty as SelfCertainty
    from ._server import ServerError as ServerError
    from ._solve import Solution as Solution
    from ._solve import solve as solve

_HOMES = {
    "_baselines": ("BeamSearch", "BestOfN", "SelfConsistency"),
    "_capabilities": ("Capabilities",),
    "_choose": ("ArgMax", "Majority", "Sample", "Selector", "WeightedVote"),
    "_decoded": ("DecodedSteps", "TokenPopulation", "Written", "filter_tokens"),
    "_ends": ("AfterTokens", "AtMatch", "AtString", "AtToken", "StepEnd", "When"),
    "_filter": ("StepFilter",),
    "_generate": ("Generated", "PrefixCache", "generate"),
    "_gibbs": ("StepGibbs",),
    "_in_process": ("Characters", "JaxModel"),
    "_ledger": ("Budget", "Ledger", "Spend"),
    "_method": ("StepMethod",),
    "_model": ("CallableModel", "LanguageModel"),
    "_openai": ("OpenAIModel",),
    "_population": ("Population",),
    "_prefix": ("Prefix", "Step"),
    "_pretrained": ("Tokenizer", "load_decoder", "load_tokenizer"),
    "_reasoning": ("Reasoning",),
    "_replay": ("Recorder", "ReplayError", "Replayed"),
    "_reward": ("CallableReward", "Reward", "RewardError"),
    "_scorer": ("HTTPReward", "SelfCertainty"),
    "_server": ("ServerError",),
    "_solve": ("Solution", "solve"),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _HOMES)
