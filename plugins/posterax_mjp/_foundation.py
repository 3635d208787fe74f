"""Rates at once: a network that was trained on processes of a prior, and its answers polished by the likelihood."""

import dataclasses
import os
import warnings
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import PRNGKeyArray
from posterax import Checkpoint, Draws, Estimator, PosteraxWarning, check_key, train
from posterax._keys import named
from posterax._precision import precision

from ._correction import corrected_draws, law_draws
from ._emissions import FlippedLabels, TrueLabels
from ._encoder import PairEncoder
from ._estimator import METHODS, MJPLikelihood
from ._law_objective import RateLawLikelihood
from ._panel import PanelData, as_panel
from ._panel_summaries import readable
from ._path_encoder import PathEncoder
from ._prior import ProcessPrior, wide_prior
from ._rate_law import RateLaw
from ._start import check_possible
from ._training_data import ExampleBatches, PathBatches, examples

_MOST_STATES, _FASTEST = 8, 100.0


class MJPFoundation(Estimator):
    """Rates of a Markov jump process from noisy snapshots, by one pass of a network trained on simulated processes.

    Times may be rescaled, and there may be any number of paths. `pretrained()` has been trained.

    - `polish`: None: the answer is the network's law of the rates. "ml", "map", "laplace", "nuts": draws by
      `MJPLikelihood`, begun where the network is, under the training prior of the rates ("ml": without any).
    - `noise`: the share of wrong labels; None to estimate it.
    - `edge_threshold`: jumps that the network finds less probable than this are left out of the polished model, where
      the data allow it; "ml" keeps all.
    - `prior`: what it was trained on, `wide_prior()` unless `fit` is given another; its rates' law polishes.
    - `encoder`: "pairs": summaries of the transitions, which hold what plain likelihood knows, and layers that add what
      the prior does; labels may be permuted, and there may be 2 to 8 states (more are flagged). "bilstm": the paper's
      network, for at most six states, which reads paths; its `width` is that of each direction.
    - `width`, `depth`, `num_components`: of the network; the paper's heeds the first alone.
    - `num_examples`: simulated processes for each number of states in `num_states`; `most_paths` of each. The paper's
      network sees fresh ones at every step.
    - `num_steps`: of Adam, with `batch_size` processes of each number of states. `learning_rate`: falls to 0.

    Fitted fields: `network`; `report`: "losses", "num_steps", "num_examples", "result_code", "history".

    Source: Berghaus et al. (2024), "Foundation Inference Models for Markov Jump Processes", arXiv:2406.06419, whose
    encoder is "bilstm".
    """

    polish: Literal["ml", "map", "laplace", "nuts"] | None = eqx.field(static=True, default=None)
    noise: float | None = eqx.field(static=True, default=0.0)
    edge_threshold: float = eqx.field(static=True, default=0.5)
    prior: ProcessPrior = dataclasses.field(default_factory=wide_prior)
    encoder: Literal["pairs", "bilstm"] = eqx.field(static=True, default="pairs")
    width: int = eqx.field(static=True, default=64)
    depth: int = eqx.field(static=True, default=4)
    num_components: int = eqx.field(static=True, default=3)
    num_states: tuple[int, ...] = eqx.field(static=True, default=(2, 3, 4, 5, 6, 7, 8))
    num_examples: int = eqx.field(static=True, default=4096)
    most_paths: int = eqx.field(static=True, default=300)
    num_steps: int = eqx.field(static=True, default=10_000)
    batch_size: int = eqx.field(static=True, default=16)
    learning_rate: float = eqx.field(static=True, default=2e-3)
    network: PairEncoder | PathEncoder | None = None
    report: dict[str, Any] | None = None

    def __check_init__(self):
        if self.polish is not None and self.polish not in METHODS:
            raise ValueError(f"`polish` must be None or one of {', '.join(METHODS)}; got {self.polish!r}.")
        if self.noise is not None and not 0 <= self.noise < 1:
            raise ValueError(f"`noise`, the share of wrong labels, must lie in [0, 1); got {self.noise!r}.")
        if not 0 <= self.edge_threshold <= 1:
            raise ValueError(f"`edge_threshold` must lie in [0, 1]; got {self.edge_threshold!r}.")
        if self.encoder not in ("pairs", "bilstm"):
            raise ValueError(f'`encoder` must be "pairs" or "bilstm"; got {self.encoder!r}.')
        most = _MOST_STATES if self.encoder == "pairs" else PathEncoder.most_states
        if not self.num_states or any(not 2 <= k <= most for k in self.num_states):
            raise ValueError(f"`num_states` must lie between 2 and {most}; got {self.num_states}.")
        for name in ("width", "depth", "num_components", "num_examples", "most_paths", "num_steps", "batch_size"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"`{name}` must be 1 or more; got {getattr(self, name)!r}.")

    @property
    def infers(self) -> Literal["distribution", "draws"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Draws where answers are polished."""
        return "distribution" if self.polish is None else "draws"

    def fit(
        self, data: ProcessPrior | ExampleBatches | PathBatches, *, key: PRNGKeyArray,
        checkpoint: str | os.PathLike | Checkpoint | None = None, progress: bool | None = None,
    ) -> "MJPFoundation":  # fmt: skip
        """A copy whose network is trained.

        - `data`: the prior, of which processes are simulated; or batches made before, of processes of `prior`.
        - `checkpoint`, `progress`: as in `posterax.train`.
        """
        key = check_key(key, "MJPFoundation.fit")
        if not isinstance(data, (ProcessPrior, ExampleBatches, PathBatches)):
            raise TypeError(f"`data` must be a ProcessPrior such as `wide_prior()`; got {type(data).__name__}.")
        prior = data if isinstance(data, ProcessPrior) else self.prior
        batches = self._simulated(data, key=key) if isinstance(data, ProcessPrior) else data
        rate = optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, self.num_steps // 20 + 1, self.num_steps)
        trained = train(
            self.untrained(key=key), RateLawLikelihood(), batches, num_steps=self.num_steps, key=named(key, "train"),
            optimiser=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)), checkpoint=checkpoint,
            progress=progress,
        )  # fmt: skip
        report = {
            "losses": np.asarray(trained.losses), "num_steps": len(trained.losses), "result_code": trained.result_code,
            "num_examples": batches.num_examples(self.num_steps), "history": trained.history,
        }  # fmt: skip
        return dataclasses.replace(self, prior=prior, network=trained.model, report=report)

    def untrained(self, *, key: PRNGKeyArray) -> PairEncoder | PathEncoder:
        """The network with random weights."""
        if self.encoder == "bilstm":
            return PathEncoder.init(self.width, key=named(key, "encoder"))
        return PairEncoder.init(self.width, self.depth, self.num_components, key=named(key, "encoder"))

    def _simulated(self, prior: ProcessPrior, *, key: PRNGKeyArray) -> ExampleBatches | PathBatches:
        """What the network learns from."""
        key = named(key, "examples")
        if self.encoder == "bilstm":
            return PathBatches(prior, self.num_states, self.batch_size, self.most_paths)
        sets = tuple(
            examples(prior, k, self.num_examples, most_paths=self.most_paths, key=jr.fold_in(key, k))
            for k in self.num_states
        )
        return ExampleBatches(jax.tree.map(jnp.asarray, sets), (self.batch_size,) * len(sets))

    def infer(
        self, observed: PanelData | None = None, *, prior: Any = None, key: PRNGKeyArray | None = None
    ) -> RateLaw | Draws:
        """The law of the rates given snapshots; or draws, where answers are polished, which needs a `key`.

        Warns where data are unlike all that the network was trained on; `flags` gives the words.
        """
        if prior is not None:
            raise ValueError("`prior` is what the network was trained on: train another one, or polish with it.")
        panel = as_panel(observed, "observed")
        law = self.law(panel)
        for flag in self._flags(panel, law):
            warnings.warn(f"Outside of what the network was trained on: {flag}.", PosteraxWarning, stacklevel=2)
        if self.polish is None:
            return law
        key = check_key(key, "MJPFoundation.infer")
        return self._polished(panel, law, key=named(key, "fit")).infer(key=named(key, "draw"))

    def law(self, panel: PanelData) -> RateLaw:
        """The network's law of the rates, in the data's units of time."""
        return self._law(readable(panel))

    def _law(self, panel: PanelData) -> RateLaw:
        """The same, of rows whose state is known."""
        if self.network is None:
            raise ValueError("This MJPFoundation has not been fitted: call `fit(prior, key=...)` or `pretrained()`.")
        found = _encoded(self.network, self.network.read(panel, self.noise))
        return eqx.tree_at(lambda law: law.horizon, found, jnp.asarray(panel.horizon))

    def polished(self, panel: PanelData, *, key: PRNGKeyArray) -> MJPLikelihood:
        """The likelihood's fit, begun where the network is; `polish` None counts as "map"."""
        return self._polished(panel, self.law(panel), key=key)

    def _polished(self, panel: PanelData, law: RateLaw, *, key: PRNGKeyArray) -> MJPLikelihood:
        method = self.polish or "map"
        emission = TrueLabels() if self.noise == 0 else FlippedLabels(self.noise)
        edges = np.asarray(law.edge_probs) >= (0.0 if method == "ml" else self.edge_threshold)
        edges = _possible(edges & ~np.eye(len(edges), dtype=bool), panel, self.noise == 0)
        model = MJPLikelihood(
            method=method, emission=emission, edges=edges, prior=None if method == "ml" else self.prior.rates
        )
        return model.fit(panel, key=key, start=np.asarray(law.present_mean(), float))

    def draws(self, panel: PanelData, num_draws: int = 1000, *, corrected: bool = True, key: PRNGKeyArray) -> Draws:
        """Draws of "rates", `(k, k)`, of the network's law: for `answers`, or ArviZ.

        - `corrected`: weighted to the exact posterior, edges and all, under the prior of the training, whose parts must
          know their densities. The more states and rows, the fewer of the draws count: their effective sample size and
          Pareto's k tell. Needs to know `noise`.
        """
        key = check_key(key, "MJPFoundation.draws")
        panel = readable(as_panel(panel, "panel"))
        if corrected and self.noise is None:
            raise ValueError("`corrected` needs the share of wrong labels: set `noise`, or `corrected=False`.")
        law = self._law(panel)
        with precision(64):
            law = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, float)), law)
            if corrected and self.noise is not None:
                return corrected_draws(law, panel, self.prior, self.noise, num_draws, key=key)
            return law_draws(law, panel, num_draws, key=key)

    def flags(self, panel: PanelData) -> list[str]:
        """What lies outside of what the network was trained on, in words; none if all is well."""
        return self._flags(panel, self.law(panel))

    def _flags(self, panel: PanelData, law: RateLaw) -> list[str]:
        found = []
        if panel.num_states > max(self.num_states):
            found.append(f"{panel.num_states} states; it knows at most {max(self.num_states)}")
        fastest, most = float(jnp.max(law.mean)) * panel.horizon, min(self.prior.rates.bounds[1], _FASTEST)
        if fastest > most:
            found.append(f"a rate of {fastest:.3g} per horizon; it knows at most {most:g}")
        never = np.setdiff1d(np.arange(panel.num_states), panel.state)
        if len(never):
            found.append(f"states never seen: {', '.join(panel.states[d] for d in never)}")
        rows = np.bincount(panel.subject).max()
        if rows < 8:
            found.append(f"{rows} rows of a path at most; it knows 8 or more")
        if self.encoder == "bilstm" and panel.num_subjects > self.most_paths:
            found.append(f"{panel.num_subjects} paths; it knows at most {self.most_paths}")
        return found


def _possible(edges: np.ndarray, panel: PanelData, true: bool) -> np.ndarray:
    """These edges; or all, where true labels need others or no jump is left."""
    every = ~np.eye(len(edges), dtype=bool)
    if not edges.any():
        return every
    try:
        if true:
            check_possible(panel, edges)
    except ValueError:
        return every
    return edges


@eqx.filter_jit
def _encoded(network: Any, told: Any) -> RateLaw:
    return network(told)
