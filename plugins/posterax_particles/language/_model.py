"""LanguageModel: what writes steps."""

import abc
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ._ends import StepEnd
from ._ledger import Ledger
from ._loop import run
from ._prefix import Prefix, Step


class LanguageModel(abc.ABC):
    """Writes the next step of a prefix. Components of kind `language-model` are subclasses."""

    @abc.abstractmethod
    async def propose(
        self, prefixes: Sequence[Prefix], *, end: StepEnd, max_tokens: int, seeds: Sequence[int], ledger: Ledger
    ) -> list[Step]:
        """One step for each prefix, in their order.

        - `prefixes`: none of them finished; the same one may come several times, and then wants independent steps.
        - `end`: where a step ends.
        - `max_tokens`: the most that a step may take, `end.max_tokens` or less.
        - `seeds`: one integer in [0, 2^31) for each prefix; a model that can repeat itself draws by them alone.
        - `ledger`: `ledger.wrote(requests=, tokens=, prompt_tokens=)` is called for every request.

        A step that could not be had after all has ending "failed"; `propose` raises only where none ever can be had.
        """

    async def aclose(self) -> None:
        """Lets go of connections; the model can be used again."""
        return

    def close(self) -> None:
        """`aclose` for scripts and notebooks."""
        run(self.aclose())


class CallableModel(LanguageModel):
    """A Python function as a language model: for scripts, tests, and models that nobody has wrapped yet.

    - `function`: `function(prefix, seed)` gives a `Step`, or a text that is a whole step; it may be `async`.
    - `stop`: a text that, at the end of a step, ends the answer; it stays in the text.
    """

    def __init__(self, function: Callable[[Prefix, int], Any], *, stop: str | None = None):
        if not callable(function):
            raise TypeError(f"`function` must be callable; got {function!r}.")
        self.function, self.stop = function, stop

    async def propose(self, prefixes, *, end, max_tokens, seeds, ledger):
        """The function, prefix by prefix."""
        del end, max_tokens
        steps = []
        for prefix, seed in zip(prefixes, seeds, strict=True):
            made = self.function(prefix, seed)
            made = await made if inspect.isawaitable(made) else made
            if isinstance(made, str):
                ending = "stop" if self.stop is not None and made.endswith(self.stop) else "step"
                made = Step(made, ending, tokens=1)
            steps.append(made)
            ledger.wrote(requests=1, tokens=made.tokens)
        return steps
