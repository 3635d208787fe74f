"""A section of `posterax demo`: rates of a molecular motor at once, polished, and what they say of its entropy."""

import time
import warnings
from typing import Any

import jax.random as jr
import numpy as np

from ._estimator import MJPLikelihood
from ._panel import PanelData
from ._pretrained import pretrained
from ._process import Process

_TIMES = np.linspace(0.0, 2.5, 100)
_OFF = ~np.eye(6, dtype=bool)


def ratchet(report: Any) -> None:
    """Six states, 300 paths: network, likelihood, truth."""
    from posterax_models import FlashingRatchet

    motor = FlashingRatchet()
    process = Process(motor.rates, motor.stationary_law)
    panel = PanelData.from_paths(np.asarray(process.sample(_TIMES, 300, key=jr.key(0))), _TIMES, num_states=6)
    network = pretrained(polish="map")
    report.say("300 paths of a flashing ratchet, 100 snapshots each; the network has never seen one")
    network.law(panel)  # compiled
    began = time.perf_counter()
    law = network.law(panel)
    report.say(f"30 rates with their uncertainty in {1000 * (time.perf_counter() - began):.0f} ms")

    polished = network.polished(panel, key=jr.key(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # by themselves the data do not bound every rate
        cold = MJPLikelihood().fit(panel, key=jr.key(1))
    errors = [np.sqrt(np.mean((rates - motor.rates)[_OFF] ** 2)) for rates in (law.mean, polished.rates, cold.rates)]
    steps = [(fitted.report or {})["num_evaluations"] for fitted in (polished, cold)]
    report.say(
        f"error of the rates: network {errors[0]:.3f}, polished {errors[1]:.3f} ({steps[0]} evaluations of the "
        f"likelihood), maximum likelihood from a cold start {errors[2]:.3f} ({steps[1]})"
    )
    rows = []
    for i, j in ((0, 1), (1, 2), (2, 0), (3, 4), (0, 3), (5, 2)):
        sd = float(np.sqrt(law.variance[i, j]))
        rows.append((f"rate {i} to {j}", float(law.mean[i, j]), sd, float(motor.rates[i, j])))
    report.compare("The network's mean and standard deviation beside the truth.", rows)
    report.picture("ratchet", lambda path: _plot(path, law, polished, motor.rates), "Rates: network, polished, truth.")


def _plot(path: Any, law: Any, polished: MJPLikelihood, truth: np.ndarray) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    order = np.argsort(truth[_OFF], kind="stable")
    place = np.arange(30)
    mean, sd = np.asarray(law.mean)[_OFF][order], np.sqrt(np.asarray(law.variance))[_OFF][order]
    axes.errorbar(place, mean, 2 * sd, fmt="o", ms=4, color="C3", label="network, 2 standard deviations")
    axes.plot(place, polished.rates[_OFF][order], "x", color="C0", label="polished by the likelihood")
    axes.step(place, truth[_OFF][order], where="mid", color="k", lw=1, label="truth")
    axes.set(xlabel="pair of states", ylabel="rate")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
