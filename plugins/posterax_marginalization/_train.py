"""From data or an energy to a fitted model, with its record."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from posterax import Batches, Trained, train
from posterax._keys import named

from ._checks import errors_by_size
from ._columns import Columns
from ._energy import Energy
from ._energy_objectives import KullbackLeibler
from ._marginals import Marginals
from ._networks import values_of
from ._objectives import Rows
from ._settings import consistency_of, energy_objective_of
from ._stages import Joint, drawn, optimiser, two_stages
from ._support import Support

_DRAWS = 2048


class Fitted(NamedTuple):
    """The fitted fields of an estimator."""

    model: Marginals
    columns: Columns
    energy: Energy | None
    support: Support
    report: dict[str, Any]


def fit_data(
    settings: Any, columns: Columns, x: np.ndarray, present: np.ndarray, *, key: PRNGKeyArray, **run: Any
) -> Fitted:
    """From coded rows."""
    if x.ndim != 2 or not len(x):
        raise ValueError(f"`data` must have shape (rows, columns) and at least one row; got {x.shape}.")
    if empty := [columns.names[d] for d in np.flatnonzero(~present.any(0))]:
        raise ValueError(f"The columns {empty} have no value in any row. Leave them out.")
    some = present.any(1)
    x, present = x[some], present[some]
    model = Marginals.init(
        columns.num_values, settings.architecture, settings.marginal_architecture, key=named(key, "networks")
    )
    rows, consistency = Rows(jnp.asarray(x), jnp.asarray(present)), consistency_of(settings)
    if settings.joint:
        if not present.all():
            raise ValueError("`joint` needs rows without missing values; two stages (`joint=False`) do without.")
        adam = optimiser(settings, settings.num_steps, weight_decay=settings.weight_decay)
        trained = train(
            model, Joint(consistency), Batches(rows, min(settings.batch_size, len(x))), num_steps=settings.num_steps,
            key=named(key, "train"), optimiser=adam, **run,
        )  # fmt: skip
        model, seen, stages = trained.model, jnp.asarray(x), {"joint": trained}
    else:
        model, seen, stages = two_stages(model, rows, settings, consistency, key=named(key, "train"), **run)
    came = np.stack([np.isin(np.arange(max(columns.num_values)), x[present[:, d], d]) for d in range(x.shape[1])])
    return _finished(settings, model, columns, None, seen, stages, came=came, num_rows=len(x), key=key)


def fit_energy(settings: Any, energy: Energy, *, key: PRNGKeyArray, **run: Any) -> Fitted:
    """From an energy."""
    guess, floor = energy.probe(key=named(key, "probe"))
    objective = energy_objective_of(settings, energy, floor)
    anchored = isinstance(objective, KullbackLeibler)
    first = float(np.log(energy.num_values).sum()) if anchored else guess
    model = Marginals.init(
        energy.num_values, settings.architecture, settings.marginal_architecture, first, key=named(key, "networks")
    )
    trained = train(
        model, objective, num_steps=settings.num_steps, key=named(key, "train"),
        optimiser=optimiser(settings, settings.num_steps, clip=1.0, b2=0.99), **run,
    )  # fmt: skip
    columns = Columns.of_integers(energy.num_values, energy.names)
    if energy.values is not None:
        columns = Columns(columns.names, energy.values)
    seen = drawn(trained.model, _DRAWS, key=named(key, "seen"))
    log_weight = None if anchored else objective.log_weight
    return _finished(
        settings, trained.model, columns, energy, seen, {"energy": trained}, log_weight, anchored=anchored, key=key
    )


def _finished(
    settings: Any, model: Marginals, columns: Columns, energy: Energy | None, seen: Any, stages: dict[str, Trained],
    log_weight: Any = None, came: Any = None, *, key: PRNGKeyArray, **more: Any,
) -> Fitted:  # fmt: skip
    own = drawn(model, _DRAWS, key=named(key, "checked")) if energy is None else seen
    weights = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    report = {
        "consistency": errors_by_size(model, own, log_weight, key=named(key, "errors")).to_dict("records"),
        "loss": {name: _last(trained.losses) for name, trained in stages.items()},
        "residual": {name: _last(t.metrics["residual"]) for name, t in stages.items() if "residual" in t.metrics},
        "num_steps": {name: len(trained.losses) for name, trained in stages.items()},
        "num_skipped": sum(trained.num_skipped for trained in stages.values()),
        "num_weights": sum(leaf.size for leaf in weights),
        "result_code": next((t.result_code for t in stages.values() if t.result_code != "successful"), "successful"),
        "history": tuple(record for trained in stages.values() for record in trained.history),
        **more,
    }
    support = Support.of(model, seen, values_of(model.num_values) if came is None else came, key=named(key, "least"))
    return Fitted(model, columns, energy, support, report)


def _last(values: np.ndarray) -> float:
    """The mean over the last twentieth of the steps."""
    return float(np.nanmean(values[-max(1, len(values) // 20) :]))
