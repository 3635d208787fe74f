"""The exact likelihood of panel data: products of transition probabilities, or a forward recursion."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._emissions import Emission, Rows, TrueLabels
from ._generators import limit_law
from ._intervals import Intervals, Sequences, Transitions
from ._panel import PanelData
from ._rate_model import Parameters, RateModel

INITIAL = ("given", "stationary", "estimated")


class Likelihood(eqx.Module):
    """Log-likelihood of parameters, for one data set; it holds all that is known of the data.

    - `initial`: the law of the first states: "given" (conditioned on; what it leaves open is equally likely),
      "stationary" (covariates as in the first design), "estimated", or "known": `initial_probs`.

    `value(parameters)` is the sum, `by_subject(parameters)` its terms; `firsts`: how often each state is
    the first.
    """

    model: RateModel
    emission: Emission
    initial: str = eqx.field(static=True)
    initial_probs: Float[Array, " k"] | None
    intervals: Intervals
    transitions: Transitions | None
    sequences: Sequences | None
    rows: Rows
    firsts: Float[Array, " k"]

    @staticmethod
    def of(
        panel: PanelData, model: RateModel, emission: Emission, initial: Any, *, sequenced: bool = False
    ) -> "Likelihood":
        """Of a panel; `sequenced`: by the forward recursion also where counts of pairs would do."""
        intervals, steps = Intervals.of(panel)
        simple = panel.is_known and isinstance(emission, TrueLabels) and not sequenced
        return Likelihood(
            model, emission, *((initial, None) if isinstance(initial, str) else ("known", jnp.asarray(initial))),
            intervals,
            Transitions.of(panel, steps) if simple else None, None if simple else Sequences.of(panel, steps),
            Rows.of(panel, model.num_states), jnp.asarray(panel.possible()[~panel.follows].sum(0) if simple else 0.0),
        )  # fmt: skip

    def start(self, rates: Float[np.ndarray, "k k"]) -> Parameters:
        """Parameters to begin with."""
        parameters = {**self.model.start(rates), **self.emission.start(self.rows)}
        if self.initial == "estimated":
            parameters["initial_logits"] = jnp.zeros(self.model.num_states - 1)
        return parameters

    def initial_law(self, parameters: Parameters, generator: Float[Array, "k k"]) -> Float[Array, " k"] | None:
        """Of the first states; None where they are given."""
        if self.initial == "known":
            return self.initial_probs
        if self.initial == "estimated":
            return jax.nn.softmax(jnp.concatenate([jnp.zeros(1), parameters["initial_logits"]]))
        return limit_law(generator) if self.initial == "stationary" else None

    def value(self, parameters: Parameters) -> Float[Array, ""]:
        """Log-likelihood in nats."""
        generators = self.model.generators(parameters, self.intervals.covariates)
        matrices = self.intervals.matrices(generators)
        law = self.initial_law(parameters, generators[0])
        if self.transitions is None:
            return jnp.sum(self._forward(parameters, matrices, law))
        pairs = self.transitions
        probs = matrices[pairs.step, pairs.start, pairs.end]
        total = jnp.sum(pairs.count * jnp.log(jnp.where(pairs.count > 0, probs, 1.0)))
        return total if law is None else total + self.firsts @ jnp.log(jnp.where(self.firsts > 0, law, 1.0))

    @property
    def side_by_side(self) -> Sequences:
        """Rows of each subject; `ValueError` where it was made without."""
        if self.sequences is None:
            raise ValueError("This likelihood was made without sequences: make it with `sequenced=True`.")
        return self.sequences

    def by_subject(self, parameters: Parameters) -> Float[Array, " K"]:
        """Log-likelihood of each subject; needs sequences: make it with `sequenced=True`."""
        generators = self.model.generators(parameters, self.intervals.covariates)
        law = self.initial_law(parameters, generators[0])
        return self._forward(parameters, self.intervals.matrices(generators), law)

    def _forward(
        self, parameters: Parameters, matrices: Float[Array, "T k k"], law: Float[Array, " k"] | None
    ) -> Float[Array, " K"]:
        """By the forward recursion, normalised at each row."""
        rows = self.side_by_side
        seen = self.emission.log_probs(parameters, self.rows)
        scale = jax.lax.stop_gradient(jnp.max(seen, -1))
        scale = jnp.where(jnp.isfinite(scale), scale, 0.0)
        weights = jnp.where(rows.there[..., None], jnp.exp(seen - scale[:, None])[rows.row], 1.0)
        scales = jnp.sum(jnp.where(rows.there, scale[rows.row], 0.0), 0)
        start = weights[0] if law is None else weights[0] * law
        norm = jnp.sum(start, -1)
        told = jnp.log(norm) if law is not None else -scale[rows.row[0]]
        total = scales + jnp.where(rows.there[0], told, 0.0)

        def step(carry, given):
            alpha, total = carry
            which, weight, there = given
            after = jnp.einsum("ni,nij->nj", alpha, matrices[which]) * weight
            norm = jnp.sum(after, -1)
            after = jnp.where(there[:, None], after / norm[:, None], alpha)
            return (after, total + jnp.where(there, jnp.log(jnp.where(there, norm, 1.0)), 0.0)), None

        given = (rows.step, weights[1:], rows.there[1:])
        (_, total), _ = jax.lax.scan(step, (start / norm[:, None], total), given)
        return total
