"""What follows from rates as a stage of a pipeline."""

from typing import ClassVar

import equinox as eqx
from jaxtyping import PRNGKeyArray
from posterax import Draws, Stage

from ._answers_draws import answers


class Answer(Stage):
    """Add to draws of rates what follows from each: passage times, entropy production and the rest; see `answers`.

    `Infer(pretrained(polish="nuts"), panel) >> Answer()` goes from snapshots to intervals of passage times.

    - `times`: at which transition probabilities are told. `start`, `end`: names of states, for committors.
    """

    times: tuple[float, ...] | None = None
    start: tuple[str, ...] = ()
    end: tuple[str, ...] = ()
    name: str | None = eqx.field(default=None, kw_only=True)
    takes: ClassVar[tuple[str, ...]] = ("draws",)
    gives: ClassVar[str] = "draws"

    def __call__(self, value: Draws, run, *, key: PRNGKeyArray) -> Draws:
        found = answers(None, value, times=self.times, start=self.start, end=self.end)
        return found.recorded("answer", added=sorted(set(found.values) - set(value.values)))
