"""The shipped network for rates on fresh processes of its prior: calibration, and exact posteriors beside it."""

import numpy as np
from _study import FULL, study
from _timing import Figure, fresh, rows, started

_STATES = (2, 3, 4, 5, 6, 8)
_QUICK = {2: 2, 3: 2, 4: 2, 5: 2, 6: 0, 8: 0}  # irregular times take NUTS a quarter of an hour for five states


@rows("coverage", "z-sd", "edges")
def calibration():
    """One edge of each process, so that all are independent; a binomial band is 3.5 standard errors.

    Eighteen comparisons with 500 processes each (84 without FULL=1): a right network misses about once in 120 runs; a
    coverage of 50 % that is 8 points off (19 points) is found half of the time.
    """
    number = 500 if FULL else 84
    found = {
        k: study(f"mjp-calibration-{k}", range(1), lambda _, k=k: fresh("mjp_prior", "calibrated", k, number))[0]
        for k in _STATES
    }
    off, told = [], []
    for k, scores in found.items():
        place = np.array(scores["place"])
        shares = {level: np.mean(np.abs(place - 0.5) < level / 200) for level in (50, 80, 95)}
        off += [abs(share - v / 100) / np.sqrt(v / 100 * (1 - v / 100) / number) for v, share in shares.items()]
        told.append(f"{k} states " + ", ".join(f"{share:.3f}" for share in shares.values()))
    yield "coverage", Figure(float(max(off)), f"covered by 50, 80, 95 %, {number} processes each\n" + "\n".join(told))
    z = np.concatenate([found[k]["z"] for k in _STATES])
    each = ", ".join(f"{k}: {np.std(found[k]['z']):.3f}" for k in _STATES)
    yield "z-sd", Figure(float(abs(np.std(z) - 1)), f"sd {np.std(z):.3f} of {len(z)} standard scores ({each})")
    probs = np.concatenate([np.ravel(found[k]["edge_probs"]) for k in _STATES])
    edges = np.concatenate([np.ravel(found[k]["edges"]) for k in _STATES])
    brier, base = np.mean((probs - edges) ** 2), np.mean(edges) * (1 - np.mean(edges))
    bins = np.digitize(probs, np.linspace(0, 1, 11)[1:-1])
    table = [f"{probs[bins == b].mean():.2f}: {edges[bins == b].mean():.2f}" for b in range(10) if (bins == b).any()]
    away = sum(np.mean(bins == b) * abs(probs[bins == b].mean() - edges[bins == b].mean()) for b in set(bins))
    yield "edges", Figure(
        float(brier / base), f"Brier {brier:.4f}, of frequencies alone {base:.4f}; mean distance from the diagonal "
        f"{away:.4f}\ntold and true: {', '.join(table)}",
    )  # fmt: skip


def calibrated(num_states: int, number: int) -> dict[str, list]:
    """Scores of fresh processes, in a process of its own."""
    import jax.random as jr
    from posterax_mjp import pretrained, score, wide_prior

    found = score(pretrained().network, wide_prior(), num_states, number, key=jr.key(2024))
    return {name: np.asarray(getattr(found, name)).tolist() for name in ("place", "z", "edge_probs", "edges")}


@rows("nuts-mean", "nuts-sd", "sets-mean", "sets-edges")
def posteriors():
    """Complete graphs against NUTS, few states against sums over all edge sets, all under the training prior."""
    runs = _beside_nuts()
    shift = [value for found in runs.values() for run in found for value in run["shift"]]
    ratio = [value for found in runs.values() for run in found for value in run["ratio"]]
    told = {
        name: ", ".join(
            f"{k} states {np.median([v for run in of_k for v in run[name]]):.2f}" for k, of_k in runs.items()
        )
        for name in ("shift", "ratio")
    }
    text = f"distances of the means in NUTS's sd, medians: {told['shift']}"
    yield "nuts-mean", Figure(float(np.median(shift)), text)
    text = f"sd over NUTS's, medians: {told['ratio']}; all {np.median(ratio):.3f}"
    yield "nuts-sd", Figure(float(abs(np.median(ratio) - 1)), text)
    number = 20 if FULL else 6  # one of each kind of grid
    waiting = {k: started("mjp_prior", "kept_sums", k, number) for k in (2, 3)}
    sums = {k: wait() for k, wait in waiting.items()}
    shift = np.concatenate([np.ravel(found["shift"]) for found in sums.values()])
    told = ", ".join(
        f"{k} states: network {np.median(found['shift']):.3f}, with weights {np.median(found['corrected']):.3f}, sd "
        f"ratio {np.median(found['ratio']):.3f}, ESS of 2,000 {np.median(found['ess']):.0f}"
        for k, found in sums.items()
    )
    yield "sets-mean", Figure(float(np.median(shift)), f"distances in exact sd, medians; {told}")
    edges = np.array(sums[3]["edges"])
    yield (
        "sets-edges",
        Figure(float(np.sqrt(np.mean(edges**2))), f"{edges.size} edges; largest {np.abs(edges).max():.3f}"),
    )


def _beside_nuts() -> dict[int, list[dict]]:
    """By number of states; two processes at a time. Without FULL=1 one of each, irregular times for two and three."""
    jobs = [(k, seed) for k in _STATES for seed in (range(8) if FULL else [_QUICK[k]])]
    runs: dict[int, list[dict]] = {k: [] for k in _STATES}
    for first in range(0, len(jobs), 2):
        waiting = [(k, started("mjp_prior", "kept_nuts", k, seed)) for k, seed in jobs[first : first + 2]]
        for k, wait in waiting:
            runs[k].append(wait())
    return runs


def kept_nuts(num_states: int, seed: int) -> dict:
    """One seed of the study."""
    return study(f"mjp-nuts-{num_states}", range(seed, seed + 1), lambda seed: beside_nuts(num_states, seed))[0]


def seen(num_states: int, seed: int, complete: bool):
    """Snapshots without wrong labels; every sixth seed has the same of the six kinds of grids."""
    import dataclasses

    import jax.random as jr
    from posterax_mjp import CompleteEdges, IrregularGrid, LabelFlips, PanelData, RegularGrid, wide_prior

    grids = [*(RegularGrid(strides=(s,)) for s in (1, 2, 3, 4)), *(IrregularGrid(probs=(p,)) for p in (0.25, 0.5))]

    prior = wide_prior()
    drawn = dataclasses.replace(prior, edges=CompleteEdges()) if complete else prior
    one, two, three = jr.split(jr.fold_in(jr.key(77), 100 * num_states + seed), 3)
    process = drawn.sample(num_states, key=one)
    number = int(np.exp(np.random.default_rng(seed).uniform(np.log(10), np.log(300))))
    grid, none = grids[(num_states + seed) % len(grids)], LabelFlips((0.0,))
    told = dataclasses.replace(prior, grid=grid, noise=none).observe(process, number, key=two)
    states, times = np.where(told.seen, told.labels, -1), np.asarray(told.times, float)
    return PanelData.from_paths(states, times, num_states=num_states), process, prior, three


def beside_nuts(num_states: int, seed: int) -> dict[str, list[float]]:
    """A complete graph: how far the network's laws of rates that are there are from NUTS."""
    from posterax_mjp import MJPLikelihood, pretrained

    panel, _, prior, key = seen(num_states, seed, True)
    model = MJPLikelihood(method="nuts", prior=prior.rates, num_warmup=300, num_draws=500, num_chains=2)
    draws = model.fit(panel, key=key, progress=False).infer()
    off = ~np.eye(num_states, dtype=bool)
    law = pretrained().law(panel)
    rates = np.asarray(draws["rates"]).reshape(-1, off.sum())
    mean, sd = rates.mean(0), rates.std(0)
    found, spread_ = np.asarray(law.present_mean())[off], np.sqrt(np.asarray(law.present_variance()))[off]
    return {"shift": (np.abs(found - mean) / sd).tolist(), "ratio": (spread_ / sd).tolist()}


def kept_sums(num_states: int, number: int) -> dict[str, list]:
    """The study of some states."""
    return study(f"mjp-sets-{num_states}", range(1), lambda _: beside_sums(num_states, number))[0]


def beside_sums(num_states: int, number: int) -> dict[str, list]:
    """Means, standard deviations and edges against sums over all edge sets."""
    import jax
    import jax.random as jr
    from posterax_mjp import over_edge_sets, pretrained

    found: dict[str, list] = {name: [] for name in ("shift", "corrected", "ratio", "edges", "ess")}
    off = ~np.eye(num_states, dtype=bool)
    for seed in range(number):
        panel, _, prior, key = seen(num_states, 1000 + seed, False)
        one, two = jr.split(key)
        exact, law = over_edge_sets(panel, prior, key=one), pretrained().law(panel)
        draws = pretrained().draws(panel, 2000, key=two)
        mean, sd = exact.mean()["rates"][off], exact.sd()["rates"][off]
        weights = np.exp(exact.flat_log_weights() - np.logaddexp.reduce(exact.flat_log_weights()))
        probs = weights @ (exact["rates"].reshape(-1, num_states, num_states) > 0)[:, off]
        found["shift"].append((np.abs(np.asarray(law.mean)[off] - mean) / sd).tolist())
        found["corrected"].append((np.abs(draws.mean()["rates"][off] - mean) / sd).tolist())
        found["ratio"].append((np.sqrt(np.asarray(law.variance)[off]) / sd).tolist())
        found["edges"].append((np.asarray(law.edge_probs)[off] - probs).tolist())
        found["ess"].append(float(draws.effective_sample_size()))
        jax.clear_caches()  # each panel has shapes of its own, and a process has room for so many programs
    return found
