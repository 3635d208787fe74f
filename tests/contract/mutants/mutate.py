"""Correct components and their mutants: each a component whose file has one line spoilt."""

import sys
import tomllib
import types
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
FILES = ("samplers", "estimators", "objectives")
TABLE = tomllib.loads((HERE / "mutants.toml").read_text())
TAGS = {name: set(tags) for name, tags in TABLE["tags"].items()}


@dataclass(frozen=True)
class Mutant:
    name: str
    component: str
    old: str
    new: str

    def load(self):
        """The spoilt component, made."""
        return made(self.component, self)


MUTANTS = [Mutant(**row) for row in TABLE["mutant"]]


def kind(component):
    return next(file for file in FILES if f"class {component}(" in source(file)).removesuffix("s")


def source(file):
    return (HERE / f"{file}.py").read_text()


def made(component, mutant=None):
    """An instance (or case) of a component, correct or spoilt, in a module of its own."""
    file = kind(component) + "s"
    text = source(file)
    if mutant is not None:
        text = spoilt(text, mutant)
    module = types.ModuleType(f"{file}_{'correct' if mutant is None else abs(hash(mutant))}")
    sys.modules[module.__name__] = module
    exec(compile(text, f"{file}.py", "exec"), module.__dict__)
    thing = getattr(module, component)()
    return subsampled_case(thing) if component == "Subsampled" else thing


def subsampled_case(objective):
    """The objective with the exact value of its random loss."""
    import jax
    import jax.numpy as jnp
    from posterax.testing import ObjectiveCase
    from posterax.testing._objective_form import DiagonalNormal, _rows

    model = DiagonalNormal(jnp.array([0.5, -1.0]), jnp.log(jnp.array([1.5, 0.7])))
    return ObjectiveCase(objective, model, _rows, exact=lambda m, batch: -jnp.mean(jax.vmap(m.log_prob)(batch)))


def spoilt(text, mutant):
    """The source with the mutant's line in the component's class replaced, and nothing else."""
    start = text.index(f"class {mutant.component}(")
    end = text.find("\n\n\n", start)
    body = text[start : end if end > 0 else len(text)]
    assert body.count(mutant.old) == 1, f"{mutant.name}: {mutant.old!r} stands {body.count(mutant.old)} times"
    body = body.replace(mutant.old, mutant.new)
    return text[:start] + body + (text[end:] if end > 0 else "")
