"""Samplers, estimators and objectives that compose. Importing this imports neither JAX nor any plugin."""

from typing import TYPE_CHECKING

from . import _pool
from ._lazy import lazy

if TYPE_CHECKING:
    from ._checkpoint import Checkpoint as Checkpoint
    from ._density import AbstractDensity as AbstractDensity
    from ._density import Structure as Structure
    from ._density import Terms as Terms
    from ._draws import Draws as Draws
    from ._draws import Result as Result
    from ._errors import CheckpointError as CheckpointError
    from ._errors import PipelineError as PipelineError
    from ._errors import PluginError as PluginError
    from ._errors import PosteraxError as PosteraxError
    from ._errors import PosteraxWarning as PosteraxWarning
    from ._errors import SamplingError as SamplingError
    from ._errors import TargetError as TargetError
    from ._errors import TrainingError as TrainingError
    from ._errors import UnknownComponentError as UnknownComponentError
    from ._estimator import Estimator as Estimator
    from ._joint import JointDistribution as JointDistribution
    from ._keys import check_key as check_key
    from ._objective import Objective as Objective
    from ._pipeline import Pipeline as Pipeline
    from ._pipeline import Stage as Stage
    from ._plan import Plan as Plan
    from ._precision import in_float64 as in_float64
    from ._registry import components as components
    from ._registry import get as get
    from ._registry import isolated as isolated
    from ._registry import plugins as plugins
    from ._registry import qualified_name as qualified_name
    from ._registry import register as register
    from ._sample import sample as sample
    from ._sample import warm_up as warm_up
    from ._sampler import PopulationSampler as PopulationSampler
    from ._sampler import Sampler as Sampler
    from ._save import load as load
    from ._save import save as save
    from ._stages import Always as Always
    from ._stages import Draw as Draw
    from ._stages import EssBelow as EssBelow
    from ._stages import Infer as Infer
    from ._stages import Move as Move
    from ._stages import Resample as Resample
    from ._stages import Reweight as Reweight
    from ._stages import Sample as Sample
    from ._study import study as study
    from ._target import Target as Target
    from ._train import Batches as Batches
    from ._train import Trained as Trained
    from ._train import train as train
    from ._version import __version__ as __version__

_pool.enlarge()

_HOMES = {
    "_checkpoint": ("Checkpoint",),
    "_density": ("AbstractDensity", "Structure", "Terms"),
    "_draws": ("Draws", "Result"),
    "_errors": (
        "CheckpointError",
        "PipelineError",
        "PluginError",
        "PosteraxError",
        "PosteraxWarning",
        "SamplingError",
        "TargetError",
        "TrainingError",
        "UnknownComponentError",
    ),
    "_estimator": ("Estimator",),
    "_joint": ("JointDistribution",),
    "_keys": ("check_key",),
    "_objective": ("Objective",),
    "_pipeline": ("Pipeline", "Stage"),
    "_plan": ("Plan",),
    "_precision": ("in_float64",),
    "_registry": ("components", "get", "isolated", "plugins", "qualified_name", "register"),
    "_sample": ("sample", "warm_up"),
    "_sampler": ("PopulationSampler", "Sampler"),
    "_save": ("load", "save"),
    "_stages": ("Always", "Draw", "EssBelow", "Infer", "Move", "Resample", "Reweight", "Sample"),
    "_study": ("study",),
    "_target": ("Target",),
    "_train": ("Batches", "Trained", "train"),
    "_version": ("__version__",),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _HOMES)
