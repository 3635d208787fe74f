"""Rates at once: a network that was trained on processes of a prior, and its answers polished by the likelihood."""

import dataclasses
import os
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import PRNGKeyArray
from posterax import Checkpoint, Draws, Estimator, check_key, train
from posterax._keys import named

from ._emissions import FlippedLabels, TrueLabels
from ._encoder import PairEncoder
from ._estimator import METHODS, MJPLikelihood
from ._law_objective import RateLawLikelihood
from ._panel import PanelData, as_panel
from ._panel_summaries import summaries_of_panel
from ._prior import ProcessPrior, wide_prior
from ._rate_law import RateLaw
from ._training_data import ExampleBatches, examples

_MOST_STATES, _FASTEST = 8, 100.0


class MJPFoundation(Estimator):
    """Rates of a Markov jump process from noisy snapshots, by one pass of a network trained on simulated processes.

    Labels may be permuted and times rescaled; there may be any number of paths, of 2 to 8 states (more are flagged).
    Summaries of the transitions hold what plain likelihood knows; the network adds what the prior does.

    - `polish`: None: the answer is the network's law of the rates. "ml", "map", "laplace", "nuts": draws by
      `MJPLikelihood`, begun where the network is, under the training prior of the rates ("ml": without any).
    - `noise`: the share of wrong labels; None to estimate it.
    - `prior`: what it is trained on; by default `wide_prior()`. `width`, `depth`, `num_components`: of the network.
    - `num_examples`: simulated processes for each number of states in `num_states`; `most_paths` of each.
    - `num_steps`: of Adam, with `batch_size` processes of each number of states. `learning_rate`: falls to 0.

    Fitted fields: `encoder`; `report`: "losses", "num_steps", "num_examples", "result_code", "history".

    Source: Berghaus et al. (2024), "Foundation Inference Models for Markov Jump Processes", arXiv:2406.06419; the
    encoder is another one.
    """

    polish: Literal["ml", "map", "laplace", "nuts"] | None = eqx.field(static=True, default=None)
    noise: float | None = eqx.field(static=True, default=0.0)
    prior: ProcessPrior = dataclasses.field(default_factory=wide_prior)
    width: int = eqx.field(static=True, default=64)
    depth: int = eqx.field(static=True, default=4)
    num_components: int = eqx.field(static=True, default=3)
    num_states: tuple[int, ...] = eqx.field(static=True, default=(2, 3, 4, 5, 6, 7, 8))
    num_examples: int = eqx.field(static=True, default=4096)
    most_paths: int = eqx.field(static=True, default=300)
    num_steps: int = eqx.field(static=True, default=10_000)
    batch_size: int = eqx.field(static=True, default=16)
    learning_rate: float = eqx.field(static=True, default=2e-3)
    encoder: Any = None
    report: dict[str, Any] | None = None

    def __check_init__(self):
        if self.polish is not None and self.polish not in METHODS:
            raise ValueError(f"`polish` must be None or one of {', '.join(METHODS)}; got {self.polish!r}.")
        if self.noise is not None and not 0 <= self.noise < 1:
            raise ValueError(f"`noise`, the share of wrong labels, must lie in [0, 1); got {self.noise!r}.")
        if not self.num_states or any(not 2 <= k <= _MOST_STATES for k in self.num_states):
            raise ValueError(f"`num_states` must lie between 2 and {_MOST_STATES}; got {self.num_states}.")
        for name in ("width", "depth", "num_components", "num_examples", "most_paths", "num_steps", "batch_size"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"`{name}` must be 1 or more; got {getattr(self, name)!r}.")

    @property
    def infers(self) -> Literal["distribution", "draws"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Draws where answers are polished."""
        return "distribution" if self.polish is None else "draws"

    def fit(
        self, data: ProcessPrior | ExampleBatches | None = None, *, key: PRNGKeyArray,
        checkpoint: str | os.PathLike | Checkpoint | None = None, progress: bool | None = None,
    ) -> "MJPFoundation":  # fmt: skip
        """A copy whose network is trained.

        - `data`: another prior; or batches made before; by default processes of `prior` are simulated.
        - `checkpoint`, `progress`: as in `posterax.train`.
        """
        key = check_key(key, "MJPFoundation.fit")
        prior = data if isinstance(data, ProcessPrior) else self.prior
        batches = data if isinstance(data, ExampleBatches) else self.simulated(prior, key=named(key, "examples"))
        encoder = PairEncoder.init(self.width, self.depth, self.num_components, key=named(key, "encoder"))
        rate = optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, self.num_steps // 20 + 1, self.num_steps)
        trained = train(
            encoder, RateLawLikelihood(), batches, num_steps=self.num_steps, key=named(key, "train"),
            optimiser=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)), checkpoint=checkpoint,
            progress=progress,
        )  # fmt: skip
        report = {
            "losses": np.asarray(trained.losses), "num_steps": len(trained.losses), "result_code": trained.result_code,
            "num_examples": sum(len(found.rates) for found in batches.examples), "history": trained.history,
        }  # fmt: skip
        return dataclasses.replace(self, prior=prior, encoder=trained.model, report=report)

    def simulated(self, prior: ProcessPrior, *, key: PRNGKeyArray) -> ExampleBatches:
        """What the network learns from."""
        sets = tuple(
            examples(prior, k, self.num_examples, most_paths=self.most_paths, key=jr.fold_in(key, k))
            for k in self.num_states
        )
        return ExampleBatches(jax.tree.map(jnp.asarray, sets), (self.batch_size,) * len(sets))

    def infer(
        self, observed: PanelData | None = None, *, prior: Any = None, key: PRNGKeyArray | None = None
    ) -> RateLaw | Draws:
        """The law of the rates given snapshots; or draws, where answers are polished, which needs a `key`."""
        if prior is not None:
            raise ValueError("`prior` is what the network was trained on: train another one, or polish with it.")
        panel = as_panel(observed, "observed")
        if self.polish is None:
            return self.law(panel)
        key = check_key(key, "MJPFoundation.infer")
        return self.polished(panel, key=named(key, "fit")).infer(key=named(key, "draw"))

    def law(self, panel: PanelData) -> RateLaw:
        """The network's law of the rates, in the data's units of time."""
        if self.encoder is None:
            raise ValueError('This MJPFoundation has not been fitted: call `fit(key=...)`, or `pretrained("...")`.')
        found = _encoded(self.encoder, summaries_of_panel(panel, self.noise))
        return eqx.tree_at(lambda law: law.horizon, found, jnp.asarray(panel.horizon))

    def polished(self, panel: PanelData, *, key: PRNGKeyArray) -> MJPLikelihood:
        """The likelihood's fit, begun where the network is."""
        start = np.asarray(self.law(panel).present_mean(), float)
        emission = TrueLabels() if self.noise == 0 else FlippedLabels(self.noise)
        method = self.polish or "map"
        model = MJPLikelihood(method=method, emission=emission, prior=None if method == "ml" else self.prior.rates)
        return model.fit(panel, key=key, start=start)

    def flags(self, panel: PanelData) -> list[str]:
        """What lies outside of what the network was trained on, in words; none if all is well."""
        law, found = self.law(panel), []
        if panel.num_states > max(self.num_states):
            found.append(f"{panel.num_states} states; trained on at most {max(self.num_states)}")
        fastest = float(jnp.max(law.mean)) * panel.horizon
        if fastest > _FASTEST:
            found.append(f"a rate of {fastest:.3g} per horizon; trained on at most {_FASTEST:g}")
        never = np.setdiff1d(np.arange(panel.num_states), panel.state)
        if len(never):
            found.append(f"states never seen: {', '.join(panel.states[d] for d in never)}")
        rows = np.bincount(panel.subject).max()
        if rows < 8:
            found.append(f"{rows} rows of a path at most; trained on 8 or more")
        return found


@eqx.filter_jit
def _encoded(encoder: Any, summaries: Any) -> RateLaw:
    return encoder(summaries)
