"""Problems with known answers, and what plugins share. Importing it imports no JAX.

Every problem with a continuous posterior keeps one shape (`Problem`): `.target` is what a sampler takes,
`.observed` the data, `.mean` and `.sd` the exact posterior moments by site name, `.log_evidence` the exact
normalising constant, `.source` where the problem comes from. The two chains, `LinearGaussianStateSpace` and
`HiddenMarkovChain`, are models: they answer for any series that is handed to them.
"""

from typing import TYPE_CHECKING

from posterax.plugin import lazy

if TYPE_CHECKING:
    from ._arithmetic import ArithmeticProblems as ArithmeticProblems
    from ._arithmetic import arithmetic_decoder as arithmetic_decoder
    from ._arithmetic import arithmetic_problems as arithmetic_problems
    from ._arithmetic import arithmetic_text as arithmetic_text
    from ._arithmetic import arithmetic_tokens as arithmetic_tokens
    from ._arithmetic_rewards import ArithmeticReward as ArithmeticReward
    from ._arithmetic_rewards import Probe as Probe
    from ._arithmetic_rewards import arithmetic_probe as arithmetic_probe
    from ._bimodal import BimodalMixture as BimodalMixture
    from ._checkerboard import Checkerboard as Checkerboard
    from ._circuit import CircuitLikelihood as CircuitLikelihood
    from ._circuit import TreeCircuit as TreeCircuit
    from ._conjugate_normal import ConjugateNormal as ConjugateNormal
    from ._decoder import Decoder as Decoder
    from ._decoder import DecoderConfig as DecoderConfig
    from ._decoder import RopeScaling as RopeScaling
    from ._eight_schools import EightSchools as EightSchools
    from ._eight_schools import eight_schools as eight_schools
    from ._eight_schools import eight_schools_exact as eight_schools_exact
    from ._eight_schools_reference import EIGHT_SCHOOLS_REFERENCE as EIGHT_SCHOOLS_REFERENCE
    from ._emission import AbstractEmission as AbstractEmission
    from ._emission import CategoricalEmission as CategoricalEmission
    from ._emission import GaussianEmission as GaussianEmission
    from ._flashing_ratchet import FlashingRatchet as FlashingRatchet
    from ._flashing_ratchet import RatchetSettings as RatchetSettings
    from ._funnel import NealsFunnel as NealsFunnel
    from ._hidden_markov import HiddenMarkovChain as HiddenMarkovChain
    from ._hidden_markov import HMMFiltered as HMMFiltered
    from ._hidden_markov import HMMSmoothed as HMMSmoothed
    from ._ising import IsingLattice as IsingLattice
    from ._kalman import Forecast as Forecast
    from ._kalman import KalmanFiltered as KalmanFiltered
    from ._kalman import KalmanSmoothed as KalmanSmoothed
    from ._local_level import local_level_log_likelihood as local_level_log_likelihood
    from ._local_level import local_level_predictions as local_level_predictions
    from ._markov_chain import MarkovChainLaw as MarkovChainLaw
    from ._nile import Nile as Nile
    from ._nile import nile as nile
    from ._nile import nile_exact as nile_exact
    from ._problem import ExactAnswers as ExactAnswers
    from ._problem import Problem as Problem
    from ._state_space import LinearGaussianStateSpace as LinearGaussianStateSpace
    from ._state_space_posterior import StateSpacePosterior as StateSpacePosterior
    from ._subset_marginals import SubsetMarginals as SubsetMarginals
    from ._subset_marginals import assignments as assignments

_HOMES = {
    "_arithmetic": (
        "ArithmeticProblems",
        "arithmetic_decoder",
        "arithmetic_problems",
        "arithmetic_text",
        "arithmetic_tokens",
    ),
    "_arithmetic_rewards": ("ArithmeticReward", "Probe", "arithmetic_probe"),
    "_bimodal": ("BimodalMixture",),
    "_checkerboard": ("Checkerboard",),
    "_circuit": ("CircuitLikelihood", "TreeCircuit"),
    "_conjugate_normal": ("ConjugateNormal",),
    "_decoder": ("Decoder", "DecoderConfig", "RopeScaling"),
    "_eight_schools": ("EightSchools", "eight_schools", "eight_schools_exact"),
    "_eight_schools_reference": ("EIGHT_SCHOOLS_REFERENCE",),
    "_emission": ("AbstractEmission", "CategoricalEmission", "GaussianEmission"),
    "_flashing_ratchet": ("FlashingRatchet", "RatchetSettings"),
    "_funnel": ("NealsFunnel",),
    "_hidden_markov": ("HMMFiltered", "HMMSmoothed", "HiddenMarkovChain"),
    "_ising": ("IsingLattice",),
    "_kalman": ("Forecast", "KalmanFiltered", "KalmanSmoothed"),
    "_local_level": ("local_level_log_likelihood", "local_level_predictions"),
    "_markov_chain": ("MarkovChainLaw",),
    "_nile": ("Nile", "nile", "nile_exact"),
    "_problem": ("ExactAnswers", "Problem"),
    "_state_space": ("LinearGaussianStateSpace",),
    "_state_space_posterior": ("StateSpacePosterior",),
    "_subset_marginals": ("SubsetMarginals", "assignments"),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)  # pyright: ignore
__getattr__, __dir__ = lazy(__name__, _HOMES)
