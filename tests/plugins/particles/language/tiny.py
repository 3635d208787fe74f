"""A language model of three letters, whose every text can be enumerated."""

import numpy as np
from posterax_particles.language import AfterTokens, CallableModel, CallableReward, Reasoning

LETTERS = "ab."
MAX_STEPS = 4


def _numbers(kind: str, text: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(f"{kind}{text}".encode(), "big") % 2**32)


def next_letter(text: str) -> np.ndarray:
    """Chances of a, b and the end."""
    return _numbers("p", text).dirichlet([6.0, 6.0, 3.0])


def reward(text: str) -> float:
    """Between 0.3 and 0.75."""
    return float(_numbers("r", text).uniform(0.3, 0.75))


def written(prefix, seed: int) -> str:
    """One letter more."""
    place = np.random.default_rng(seed).random()
    return LETTERS[min(int(np.searchsorted(np.cumsum(next_letter(prefix.text)), place)), 2)]


def problem(**settings) -> Reasoning:
    """The problem: steps of one letter, at most four, ended by a full stop."""
    model, judge = CallableModel(written, stop="."), CallableReward(lambda prefix: reward(prefix.text))
    return Reasoning(**{
        "prompt": "spell", "model": model, "reward": judge, "end": AfterTokens(1), "max_steps": MAX_STEPS, **settings
    })  # fmt: skip


def law(target: str) -> tuple[dict[str, float], float]:
    """The exact law of texts, and its normalising constant."""
    found: dict[str, float] = {}

    def grow(text: str, chance: float, weight: float, before: float) -> None:
        if len(text) == MAX_STEPS or text.endswith("."):
            found[text] = chance * weight
            return
        for letter, p in zip(LETTERS, next_letter(text), strict=True):
            longer = text + letter
            psi = reward(longer) / (1 - reward(longer))
            grow(longer, chance * p, weight * (psi if target == "product" else psi / before), psi)

    grow("", 1.0, 1.0, 1.0)
    total = sum(found.values())
    return {text: mass / total for text, mass in found.items()}, total
