"""Chained arithmetic with a branch whose dead end shows late: a reasoning task for language models, checked exactly."""

import dataclasses

import jax.random as jr
import numpy as np

from ._decoder import Decoder, DecoderConfig
from ._weights import read_weights, weights_folder

NUM_OPS = 10
STYLES = "abcdefghijklmnop"
VOCABULARY = "0123456789+-*/:AB=!" + STYLES
_ID = {symbol: i for i, symbol in enumerate(VOCABULARY)}
_PLUS, _MINUS, _TIMES, _BY, _SET, A, _EQUALS, _DEAD = (_ID[symbol] for symbol in "+-*/:A=!")
_FIRST_STYLE = _ID[STYLES[0]]
DECODER = DecoderConfig(
    vocab_size=len(VOCABULARY), hidden_size=64, intermediate_size=192, num_layers=2, num_heads=4, tie_embeddings=True
)


@dataclasses.dataclass(frozen=True)
class ArithmeticProblems:
    """Problems such as `7A+3*7-2/0...B*3-1+4...=`, and what a reasoner should write: `BkB1B0B4...`.

    Two chains of operations modulo 10 start from one digit. The answer names a chain and a style, then the chain and
    its value after every operation: steps of two tokens each. One chain has a division by zero in its second half:
    whoever has chosen it writes `!` from there on and has no answer. Factors are 3, 7 or 9, so that a value once wrong
    stays so.

    - `start`: `(n,)`, first digits.
    - `ops`: `(n, 2, num_ops)`, tokens of the operations of chains A and B; `operands`: the same, digits.
    - `live`: `(n,)`, which chain has an answer: 0 for A.
    - `values`: `(n, 2, num_ops)`, tokens of the right values.
    """

    start: np.ndarray
    ops: np.ndarray
    operands: np.ndarray
    live: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    @property
    def num_steps(self) -> int:
        """Steps of an answer: the choice, and one for each operation."""
        return self.ops.shape[2] + 1

    @property
    def prompts(self) -> np.ndarray:
        """Tokens `(n, 4 * num_ops + 4)`."""
        num = len(self)
        chains = np.stack([self.ops, self.operands], axis=-1).reshape(num, 2, -1)
        column = np.full((num, 1), 0)
        parts = [self.start[:, None], column + A, chains[:, 0], column + A + 1, chains[:, 1], column + _EQUALS]
        return np.concatenate(parts, axis=1).astype(np.int32)

    @property
    def answers(self) -> np.ndarray:
        """Tokens `(n,)` of the right last values."""
        return self.values[np.arange(len(self)), self.live, -1]

    def solutions(self, chain: np.ndarray, style: np.ndarray) -> np.ndarray:
        """Tokens `(n, 2 * num_steps)` of faultless texts by these chains, in these styles."""
        values = self.values[np.arange(len(self)), chain]
        label = np.broadcast_to((A + chain)[:, None], values.shape)
        steps = np.stack([label, values], axis=-1).reshape(len(self), -1)
        return np.concatenate([(A + chain)[:, None], (_FIRST_STYLE + style)[:, None], steps], axis=1).astype(np.int32)

    def correct(self, texts: np.ndarray) -> np.ndarray:
        """Whether complete texts `(n, ..., 2 * num_steps)` give the right answer, by their last token."""
        answers = self.answers.reshape(-1, *(1,) * (texts.ndim - 2))
        return texts[..., -1] == answers

    def __getitem__(self, index) -> "ArithmeticProblems":
        return ArithmeticProblems(*(np.asarray(getattr(self, field.name))[index] for field in dataclasses.fields(self)))


def arithmetic_problems(num: int, *, seed: int, num_ops: int = NUM_OPS, easy: float = 0.0) -> ArithmeticProblems:
    """Random problems; the chain with the dead end is either with equal chance.

    - `easy`: the share of operations such as `:5`, which sets the value to 5. Learners need some to begin with.
    """
    rng = np.random.default_rng(seed)
    start = rng.integers(10, size=num)
    ops = rng.choice([_PLUS, _MINUS, _TIMES], size=(num, 2, num_ops))
    ops = np.where(rng.random(ops.shape) < easy, _SET, ops)
    operands = np.where(ops == _TIMES, rng.choice([3, 7, 9], size=ops.shape), rng.integers(1, 10, size=ops.shape))
    live = rng.integers(2, size=num)
    place = rng.integers(num_ops // 2, num_ops, size=num)
    ops[np.arange(num), 1 - live, place] = _BY
    operands[np.arange(num), 1 - live, place] = 0
    values, now = np.empty_like(ops), np.repeat(start[:, None], 2, axis=1)
    dead = np.zeros((num, 2), bool)
    for i in range(num_ops):
        op, by = ops[:, :, i], operands[:, :, i]
        cases = {_PLUS: now + by, _MINUS: now - by, _TIMES: now * by, _SET: by}
        now = np.select([op == kind for kind in cases], list(cases.values()), now) % 10
        dead |= op == _BY
        values[:, :, i] = np.where(dead, _DEAD, now)
    return ArithmeticProblems(start, ops, operands, live, values)


def arithmetic_text(tokens) -> str:
    """Tokens as characters."""
    return "".join(VOCABULARY[int(token)] for token in np.asarray(tokens).ravel())


def arithmetic_tokens(text: str) -> np.ndarray:
    """Characters as tokens; raises `KeyError` for a character that the task does not have."""
    return np.array([_ID[symbol] for symbol in text], np.int32)


def arithmetic_decoder() -> Decoder:
    """The small language model of this task, with its shipped weights: about one step in eight goes wrong.

    `models/training/arithmetic.py` has trained it; `weights/arithmetic.json` is its card.
    """
    skeleton = Decoder.init(DECODER, key=jr.key(0))
    return read_weights(weights_folder() / "arithmetic.posterax", skeleton)
