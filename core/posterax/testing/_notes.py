"""Notes: what is odd about many runs, told once for all of them."""

import contextlib
import warnings

from .._errors import PosteraxWarning

_FEW = 0.05  # share of runs that may fall short before anybody is warned


class Notes:
    """Warnings and effective sizes of runs.

    - `num_draws`: independent draws that each run should be worth.
    """

    def __init__(self, num_draws: int):
        self._num_draws, self._sizes, self._told, self._runs = num_draws, [], [], 0

    def size(self, effective: float, enough: float) -> None:
        """Note the effective size of a run, and how large it had to be."""
        self._sizes.append((effective, enough))

    @contextlib.contextmanager
    def listening(self):
        """Keep posterax's warnings of one run back."""
        self._runs += 1
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PosteraxWarning)
            yield
        ours = [w for w in caught if issubclass(w.category, PosteraxWarning)]
        self._told += [str(w.message) for w in ours[:1]]
        for other in (w for w in caught if not issubclass(w.category, PosteraxWarning)):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)

    def warn(self, title: str) -> None:
        """Warn of what happened too often."""
        if self._told:
            words = f"{len(self._told)} of {self._runs} runs in {title} warned; the first: {self._told[0]}"
            warnings.warn(words, PosteraxWarning, stacklevel=4)
        short = [size for size, enough in self._sizes if not size >= enough]
        if len(short) > _FEW * len(self._sizes):
            warnings.warn(
                f"In {len(short)} of {len(self._sizes)} runs of {title} the draws are worth too few independent ones "
                f"for {self._num_draws} ranks: {min(short):.0f} at least. Dependent draws look like a posterior that "
                "is too narrow. Run longer chains or larger populations, or lower `num_draws`.",
                PosteraxWarning,
                stacklevel=4,
            )
