"""The errors that posterax raises on purpose: each says what was expected, what came, and what to do."""

from typing import Any


class PosteraxError(Exception):
    """Base of posterax's own errors; the command line shows them as one line, without a traceback."""


class PluginError(PosteraxError, RuntimeError):
    """A plugin, or a component of one, cannot be used; the message gives the reason and the cure."""


class UnknownComponentError(PosteraxError, LookupError):
    """No usable plugin has a component of that name and kind; the message lists what there is."""


def near(name: str, names) -> str:
    """`"; did you mean 'x'?"` for the nearest of `names`, or nothing when none is near."""
    import difflib

    found = difflib.get_close_matches(name, sorted(set(names)), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def describe(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def sentence(text: str) -> str:
    """A text with a full stop, unless it ends a sentence already."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


class TargetError(PosteraxError, ValueError):
    """A target that cannot be sampled: not finite, no gradient, or a bijection that does not round-trip."""


class CheckpointError(PosteraxError, RuntimeError):
    """A file that cannot be read or written, or that belongs to another run.

    - `kept`: what the run had made so far, where a write failed in the middle of it; else None.
    """

    kept: Any = None


class SamplingError(PosteraxError, RuntimeError):
    """A run that went wrong after it had begun.

    - `draws`: the draws made before, so that nothing is lost; None where there are none.
    """

    def __init__(self, message: str, draws=None):
        super().__init__(message)
        self.draws = draws


class TrainingError(PosteraxError, RuntimeError):
    """Training that went wrong after it had begun.

    - `trained`: the model and record of the last good step.
    """

    def __init__(self, message: str, trained=None):
        super().__init__(message)
        self.trained = trained


class PipelineError(PosteraxError, TypeError):
    """Stages that do not fit together, or a stage that cannot do what is asked of it."""


class PosteraxWarning(UserWarning):
    """A result that is there and should not be trusted without a look."""
