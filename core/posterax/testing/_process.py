"""Does the component survive files, other processes, other precisions, and a second call?"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .._checkpoint import Checkpoint
from .._keys import describe_key, named
from .._plan import Plan
from .._sample import sample
from .._save import load, save
from .._target import Target
from ._check import check
from ._run import Context
from ._verdict import Verdict, fine, require, skip

_ANYWHERE = Plan()


@check("sampler", "estimator", "objective", level="standard")
def settings_saved(context: Context) -> Verdict:
    """Writes the component to a file and reads it back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "component.posterax"
        save(path, context.component)
        back = load(path, like=context.component)
    same = bool(eqx.tree_equal(back, context.component))
    require(
        same,
        f"a component that came back as {back!r:.200}",
        f"{context.component!r:.200}",
        "Settings are arrays or plain data.",
    )
    return fine("came back equal")


@check("sampler", unless={"host"}, level="standard")
def resumed(context: Context) -> Verdict:
    """Stops a run with checkpoints half-way and resumes it: the bits of the uninterrupted run."""
    whole = _short_run(context, 40)
    with tempfile.TemporaryDirectory() as folder:
        where = Checkpoint(folder, every=0.0)
        _short_run(context, 20, where=where)
        resumed = _short_run(context, 40, where=where)
    same = all(np.array_equal(whole[name], resumed[name]) for name in whole.values)
    require(
        same,
        "a resumed run differs from the uninterrupted one",
        "the same bits",
        "All that evolves belongs in the state.",
    )
    return fine("resumed to the same bits")


def _short_run(
    context: Context, num_draws: int, *, plan: Plan = _ANYWHERE, where: Checkpoint | None = None, data: Any = None
):
    population = "population" in context.subject.tags
    target = context.joint.target(context.observed if data is None else data)
    return sample(
        context.component, target, num_draws=None if population else num_draws, num_chains=4,
        key=context.key, plan=plan, checkpoint=where, progress=False, throw=False,
    )  # fmt: skip


@check("sampler", unless={"host"}, level="standard")
def double_precision(context: Context) -> Verdict:
    """Runs in 32 and in 64 bits: values come in the precision that the plan names."""
    asked = type(context.component).precision
    for bits in (32, 64) if asked is None else (asked,):
        draws = _short_run(context, 20, plan=Plan(precision=bits))
        found = {name: str(value.dtype) for name, value in draws.values.items()}
        require(
            set(found.values()) == {f"float{bits}"},
            f"values of dtypes {found} in a run of {bits} bits",
            f"float{bits}",
            "Make new arrays of the position's dtype (`jnp.zeros_like`), not of a fixed one.",
        )
        require(
            all(np.isfinite(v).all() for v in draws.values.values()),
            f"values not finite in {bits} bits",
            "finite values",
        )
    return fine("runs in " + (f"{asked} bits" if asked else "32 and in 64 bits"))


@check("sampler", unless={"host"}, level="standard")
def smallest(context: Context) -> Verdict:
    """Draws from a target of one number, by one chain, one draw, with a key of the old style; reads the summary."""
    if context.own:
        return skip("the sampler takes a problem of its own")
    target = Target(
        log_prior=_one_number, log_likelihood=lambda x: jnp.zeros(1), sample_prior=lambda key: {"x": jr.normal(key)},
        like={"x": 0.0},
    )  # fmt: skip
    population = "population" in context.subject.tags
    draws = sample(
        context.component, target, num_draws=None if population else 1, num_chains=1,
        key=jr.key_data(context.key), progress=False, throw=False,
    )  # fmt: skip
    found = draws["x"].shape
    require(
        found == (1, draws.num_draws) and (population or found == (1, 1)), f"draws of shape {found} for one number",
        "(1, 1)" if not population else "(1, number of particles)",
    )  # fmt: skip
    require(bool(np.isfinite(draws["x"]).all()), "draws that are not finite", "finite draws")
    require(list(draws.summary().index) == ["x"], f"a summary of {list(draws.summary().index)}", "one row, for x")
    return fine("one number, one chain, one draw")


def _one_number(x):
    return -0.5 * x["x"] ** 2


@check("sampler", unless={"host"}, level="standard")
def compiled_once(context: Context) -> Verdict:
    """Counts compilations of a second call with new data: none."""
    first, second = (context.joint.simulate(key=named(context.key, name))[1] for name in ("first", "second"))
    _short_run(context, 20, data=first)
    with _counting() as count:
        _short_run(context, 20, data=second)
    return compared(count)


def compared(count: list[str]) -> Verdict:
    """The verdict on what a second call compiled."""
    require(
        not count,
        f"{len(count)} programs compiled anew in a second call with data of equal shape: {', '.join(count[:3])}",
        "none",
        "Look for settings, closures or lambdas that are new in each call.",
    )
    return fine("a second call compiles nothing")


class _counting:
    """Collects the names of the functions that JAX traces and compiles while it is entered."""

    def __enter__(self) -> list[str]:
        import logging

        self._names: list[str] = []
        self._handler = logging.Handler()
        self._handler.emit = lambda record: self._take(record.getMessage())
        self._loggers = [logging.getLogger(name) for name in ("jax._src.interpreters.pxla", "jax._src.dispatch")]
        self._before = [(logger.level, logger.propagate) for logger in self._loggers]
        self._setting = getattr(jax.config, "jax_log_compiles")  # noqa: B009
        jax.config.update("jax_log_compiles", True)
        for logger in self._loggers:
            logger.addHandler(self._handler)
            logger.propagate = False
        return self._names

    def _take(self, message: str) -> None:
        if message.startswith("Compiling "):
            self._names.append(message.removeprefix("Compiling ").partition(" ")[0])

    def __exit__(self, *_) -> None:
        jax.config.update("jax_log_compiles", self._setting)
        for logger, (level, propagate) in zip(self._loggers, self._before, strict=True):
            logger.removeHandler(self._handler)
            logger.level, logger.propagate = level, propagate


def _in_new_process(code: str, argument: str, failed: str, expected: str, *, timeout: float) -> Any:
    """What Python prints as JSON, given code and one argument; a fault with the last line of its error if it fails."""
    done = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, timeout=timeout)
    last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
    require(done.returncode == 0, f"{failed}: {last[:500]}", expected)
    return json.loads(done.stdout.strip().splitlines()[-1])


_CHILD = """
import json, sys
facts = json.loads(sys.argv[1])
from posterax.testing._process import in_child
print(json.dumps(in_child(facts)))
"""


def in_child(facts: dict) -> str:
    """What a new process computes with the component of that name: a digest of the bits."""
    from .._keys import restore_key
    from ._run import Context
    from ._subject import subject_of

    subject = subject_of(facts["name"], facts["kind"], None)
    key = restore_key(facts["key"])
    return digest(Context(subject, 1, key, key, {}))


def digest(context: Context) -> str:
    """A digest of what the component computes with this context's key."""
    import hashlib

    if context.subject.kind == "sampler":
        values = _short_run(context, 20).values
    elif context.subject.kind == "estimator":
        from ._estimator_law import answer

        values = answer(context)
    else:
        from ._objective_law import answer

        values = answer(context)
    hashed = hashlib.sha256()
    for name in sorted(values):
        hashed.update(name.encode() + np.ascontiguousarray(values[name]).tobytes())
    return hashed.hexdigest()


@check("sampler", "estimator", "objective", unless={"host"}, level="standard")
def new_process(context: Context) -> Verdict:
    """Repeats a run in a new process: the same bits."""
    if context.subject.component is None or context.subject.component.distribution is None:
        return skip("only an installed plugin's component can be found by another process")
    facts = {"name": context.subject.name, "kind": context.subject.kind, "key": describe_key(context.key)}
    there = _in_new_process(_CHILD, json.dumps(facts), "a new process failed", "the same run there", timeout=600)
    require(there == digest(context), "a new process with the same key got other bits", "the same bits")
    return fine("a new process gets the same bits")


_IMPORT = """
import json, sys, time
module = sys.argv[1]
import posterax.plugin
before = set(sys.modules)
began = time.perf_counter()
__import__(module)
seconds = time.perf_counter() - began
heavy = sorted({"jax", "numpyro", "equinox", "torch", "tensorflow", "scipy", "pandas", "matplotlib"} & set(sys.modules))
print(json.dumps({"seconds": seconds, "heavy": heavy}))
"""

_LOAD = """
import json, sys
import jax, numpy, random
names = "jax_enable_x64", "jax_default_matmul_precision", "jax_debug_nans", "jax_disable_jit"
config = {name: getattr(jax.config, name) for name in names}
state = numpy.random.get_state()[1].tolist(), random.getstate()
import posterax
posterax.get(sys.argv[1])
changed = [name for name, value in config.items() if getattr(jax.config, name) != value]
if (numpy.random.get_state()[1].tolist(), random.getstate()) != state:
    changed.append("a global random state")
print(json.dumps(changed))
"""


@check("sampler", "estimator", "objective", level="standard")
def light_import(context: Context) -> Verdict:
    """Imports the plugin's module in a new process: no JAX by listing, no global setting changed by loading."""
    component = context.subject.component
    if component is None or component.distribution is None:
        return skip("only an installed plugin has a module to be listed")
    said = "importing failed in a new process", "an import"
    found = _in_new_process(_IMPORT, str(component.owner.module), *said, timeout=120)
    changed = _in_new_process(_LOAD, component.qualified_name, *said, timeout=300)
    require(
        not found["heavy"],
        f"listing the plugin imports {', '.join(found['heavy'])}",
        "an import of the standard library only",
        "Resolve public names lazily, by `posterax.plugin.lazy`.",
    )
    require(
        not changed,
        f"importing the component changes {', '.join(changed)}",
        "no global change",
        "Use Plan(precision=64) or `in_float64`.",
    )
    return fine(f"{1000 * found['seconds']:.0f} ms, no JAX")
