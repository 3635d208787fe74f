"""Target: an unnormalised density on unconstrained space, with its prior and likelihood apart where they are known."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ._density import AbstractDensity, Structure
from ._errors import TargetError
from ._keys import check_key
from ._labels import Labels
from ._numpyro_density import NumpyroDensity
from ._plain_density import PlainDensity
from ._tree import as_data, by_name

Scalar = Float[Array, ""]


class Target(eqx.Module):
    """What is to be sampled: log p(x), up to a constant, of named values x that may be constrained.

    Samplers move in unconstrained space, where the position `u` is a PyTree of arrays and
    log density(u) = log p(x(u)) + log |dx/du|; results hold the values x. All methods take one unbatched point; use
    `jax.vmap` for many. Functions are static and data dynamic, so that new data of equal shape never compile again:
    hand data over as arguments, not through closures.

    From a NumPyro model, `Target.from_numpyro(model, *args)`. From plain functions of x and the data:

        Target(lambda x, y: -0.5 * ((y - x["mu"]) ** 2).sum(), y, like={"mu": 0.0})
        Target(log_prior=..., log_likelihood=..., data=(y,), like={"tau": 1.0}, support={"tau": constraints.positive})

    - `log_density`: function of (x, *data), a natural logarithm; or both of
    - `log_prior`: function of (x, *data), a scalar, and
    - `log_likelihood`: function of (x, *data), one array (or dict of arrays) with a term for each observation.
    - `*data` or `data=`: passed on after x.
    - `like`: an example of x, for its names, shapes and structure: a dict of arrays, or any PyTree.
    - `support`: NumPyro constraints by name; what is not named is unconstrained.
    - `sample_prior`: function of a key, one x from the prior.
    - `simulate`: function of (x, key), simulated observations by name.
    - `dims`, `coords`: axis names by variable, and labels by axis, as in ArviZ.

    Raises `ValueError` for empty data and for dims or coords that do not fit; `TargetError` for functions that cannot
    be a density.
    """

    density: AbstractDensity
    structure: Structure = eqx.field(static=True)  # shapes of the values, and the axis names that plates give
    labels: Labels = eqx.field(static=True)

    def __init__(
        self,
        log_density: Callable | None = None,
        *args: Any,
        like: PyTree,
        data: tuple = (),
        support: Mapping[str, Any] | None = None,
        log_prior: Callable | None = None,
        log_likelihood: Callable | None = None,
        sample_prior: Callable | None = None,
        simulate: Callable | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        coords: Mapping[str, Sequence] | None = None,
    ):
        whole, split = log_density is not None, log_prior is not None and log_likelihood is not None
        if whole == split or (whole and (log_prior or log_likelihood)):
            raise ValueError(
                "Target needs either `log_density`, or both of `log_prior` and `log_likelihood`; got "
                f"log_density={log_density}, log_prior={log_prior}, log_likelihood={log_likelihood}."
            )
        like = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=jnp.result_type(float)), like)
        names = by_name(like)
        if not names:
            raise ValueError("`like` has no array in it, so there is nothing to infer. Give an example of x.")
        for name in support or {}:
            if name not in names:
                raise ValueError(f"`support` names {name!r}, which `like` has not. It has {sorted(names)}.")
        data = as_data((*args, *data), "data")
        self.density = PlainDensity(
            log_density, log_prior, log_likelihood, sample_prior, simulate, data, like, dict(support or {})
        )
        self.structure = self.density.structure()
        self.labels = _labels(self.structure, dims, coords)

    @classmethod
    def from_numpyro(
        cls,
        model: Callable,
        *args: Any,
        dims: Mapping[str, Sequence[str]] | None = None,
        coords: Mapping[str, Sequence] | None = None,
        **kwargs: Any,
    ) -> "Target":
        """The posterior of a NumPyro model given the data passed to it.

        - `model`: a function with `numpyro.sample` statements; sites with `obs=` are the likelihood, and so is
          `numpyro.factor` (which stays out of the pointwise log-likelihood, being no observation).
        - `*args`, `**kwargs`: the model's arguments. Arrays and floats are traced; ints, strings and booleans not.
        - `dims`, `coords`: axis names and labels; plates name their axes themselves.

        Raises `TargetError` for a model with discrete latent sites, subsampling plates or `param` sites.
        """
        return cls.from_density(NumpyroDensity(model, as_data(args, "args"), as_data(kwargs, "kwargs")), dims, coords)

    @classmethod
    def from_density(
        cls,
        density: AbstractDensity,
        dims: Mapping[str, Sequence[str]] | None = None,
        coords: Mapping[str, Sequence] | None = None,
    ) -> "Target":
        """A target of a density that a plugin has written itself, as a subclass of `posterax.AbstractDensity`."""
        self = object.__new__(cls)
        structure = density.structure()
        fields = {"density": density, "structure": structure, "labels": _labels(structure, dims, coords)}
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        return self

    def log_density(self, u: PyTree[Array]) -> Scalar:
        """Log density of unconstrained space at `u`, Jacobian included."""
        terms = self.density.terms(u)
        return terms.log_joint + terms.log_jacobian

    def log_prior(self, u: PyTree[Array]) -> Scalar:
        """Log density of the prior at `u`, Jacobian included; `log_density` less this is the log-likelihood."""
        terms = self.density.terms(u)
        if terms.log_prior is None:
            raise TargetError(
                "This target does not know its prior from its likelihood. Make it with `log_prior=` and "
                "`log_likelihood=`, or with `Target.from_numpyro`."
            )
        return jnp.asarray(terms.log_prior + terms.log_jacobian)

    def log_likelihood(self, u: PyTree[Array]) -> dict[str, Array]:
        """Log-likelihood of each observation at `u`, by observed site; exact zeros where data are masked."""
        return self.density.terms(u).pointwise

    def log_jacobian(self, u: PyTree[Array]) -> Scalar:
        """The log of |dx/du| at `u`; `log_density(u)` less this is the log density of the values."""
        return jnp.asarray(self.density.terms(u).log_jacobian)

    def constrain(self, u: PyTree[Array]) -> dict[str, Array]:
        """The values at `u` by name, deterministic sites included."""
        terms = self.density.terms(u)
        return {**terms.values, **terms.derived}

    def unconstrain(self, values: Mapping[str, Any]) -> PyTree[Array]:
        """The position of `values`; deterministic sites among them are passed over.

        Raises `ValueError` where a latent name is missing.
        """
        latent = self.structure.latent
        if missing := sorted(set(latent) - set(values)):
            raise ValueError(
                f"`values` lacks {missing}; got {sorted(values)}. The target's latents are {sorted(latent)}."
            )
        return self.density.unconstrain({name: values[name] for name in latent})

    def initial(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        """A random position, each coordinate uniform on (-2, 2); `sample` tries several until one is finite."""
        leaves, treedef = jax.tree.flatten(self.position_like())
        keys = jr.split(check_key(key, "Target.initial"), len(leaves))
        return jax.tree.unflatten(
            treedef,
            [jr.uniform(k, leaf.shape, leaf.dtype, -2.0, 2.0) for k, leaf in zip(keys, leaves, strict=True)],
        )

    def position_like(self) -> PyTree[jax.ShapeDtypeStruct]:
        """The structure, shapes and dtypes of a position."""
        return jax.eval_shape(self.density.example)

    def sample_prior(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        """One position drawn from the prior."""
        return self.density.sample_prior(check_key(key, "Target.sample_prior"))

    def sample_predictive(self, values: Mapping[str, Any], *, key: PRNGKeyArray) -> dict[str, Array]:
        """Observations simulated at `values`, by observed site."""
        return self.density.predictive(
            {name: values[name] for name in self.structure.latent}, check_key(key, "Target.sample_predictive")
        )

    def observed(self) -> dict[str, Array]:
        """The observations by site, where the target knows them."""
        return self.density.observations()

    def check(self, *, key: PRNGKeyArray, throw: bool = True) -> list[str]:
        """Look for what would make sampling fail: values, gradients and the bijection, at random positions.

        Returns the problems in words, none if all is well; with `throw`, raises them as a `TargetError`.
        """
        from ._check import problems

        found = problems(self, check_key(key, "Target.check"))
        if found and throw:
            raise TargetError("\n".join(f"- {problem}" for problem in found))
        return found


def _labels(structure: Structure, dims, coords) -> Labels:
    shapes = {**structure.latent, **structure.derived, **structure.observed}
    labels = Labels(dims, coords)
    labels.check(shapes)
    merged = {}
    for name, shape in shapes.items():
        plates = structure.dims.get(name, [])
        given = labels.dims.get(name, [])
        axes = [None] * (len(shape) - len(plates)) + list(plates)
        for i, dim in enumerate(reversed(given)):
            axes[-1 - i] = dim
        if any(axes):
            merged[name] = [dim or f"{name}_dim_{i}" for i, dim in enumerate(axes)]
    full = Labels(merged, dict(labels.coords))
    full.check(shapes)
    return full
