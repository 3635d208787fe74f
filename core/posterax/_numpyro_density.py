"""A NumPyro model as a density: the one place that looks inside NumPyro traces."""

import copy
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray
from numpyro.distributions import MaskedDistribution, Unit, biject_to
from numpyro.handlers import block, seed, substitute, trace, uncondition
from numpyro.infer import init_to_feasible

from ._density import AbstractDensity, Structure, Terms
from ._errors import TargetError
from ._tree import as_jax


class NumpyroDensity(AbstractDensity):
    """The joint density of a NumPyro model's continuous latent sites.

    Only the model and its arguments are kept: transforms are recomputed inside each trace, so supports that depend on
    other sites work, and new data of equal shape never recompile.
    """

    model: Callable
    args: tuple
    kwargs: dict

    def _trace(self, model) -> dict:
        with block():  # so that a target can be evaluated inside another NumPyro model
            return trace(model).get_trace(*as_jax(self.args), **as_jax(self.kwargs))

    def structure(self) -> Structure:
        sites: dict = {}

        def look(key):
            sites.update(self._trace(_feasible(self.model, key)))
            return 0

        jax.eval_shape(look, jr.key(0))
        latent, observed, derived, dims = {}, {}, {}, {}
        for name, site in sites.items():
            if problem := _unsupported(name, site):
                raise TargetError(f"The model {_name(self.model)!r} cannot be a Target: {problem}")
            if site["type"] not in {"sample", "deterministic"} or _is_factor(site):
                continue
            shape = jnp.shape(site["value"])
            if site["type"] == "deterministic":
                derived[name] = shape
            else:
                (observed if site["is_observed"] else latent)[name] = shape
            if plates := _plate_dims(site, len(shape)):
                dims[name] = plates
        if not latent:
            raise TargetError(
                f"The model {_name(self.model)!r} has no latent continuous site, so there is nothing to infer. "
                "Was data passed for every `numpyro.sample`?"
            )
        return Structure(latent, observed, derived, dims)

    def terms(self, u) -> Terms:
        jacobian = []

        def constrain_site(site):
            if site["type"] != "sample" or site["is_observed"] or site["name"] not in u:
                return None
            transform = biject_to(site["fn"].support)
            unconstrained = u[site["name"]]
            value = transform(unconstrained)
            jacobian.append(jnp.sum(transform.log_abs_det_jacobian(unconstrained, value)))
            return value

        sites = self._trace(substitute(self.model, substitute_fn=constrain_site))
        prior, likelihood, pointwise, values, derived = 0.0, 0.0, {}, {}, {}
        for name, site in sites.items():
            if site["type"] == "deterministic":
                derived[name] = site["value"]
            if site["type"] != "sample":
                continue
            if site["is_observed"]:
                # `numpyro.factor` counts as likelihood; only real data are terms of a leave-one-out estimate.
                likelihood += _summed(site)
                if not _is_factor(site):
                    pointwise[name] = _log_prob(site)
            else:
                prior += _scaled(site, _log_prob(site))
                values[name] = site["value"]
        return Terms(prior, likelihood, pointwise, sum(jacobian, start=0.0), values, derived)

    def unconstrain(self, values) -> dict:
        u = {}

        def note(site):
            if site["type"] != "sample" or site["is_observed"] or site["name"] not in values:
                return None
            value = jnp.asarray(values[site["name"]], dtype=jnp.result_type(float))
            u[site["name"]] = biject_to(site["fn"].support).inv(value)
            return value

        self._trace(substitute(self.model, substitute_fn=note))
        return u

    def example(self) -> dict:
        return _latent_position(self._trace(_feasible(self.model, jr.key(0))))

    def sample_prior(self, key: PRNGKeyArray) -> dict:
        try:
            return _latent_position(self._trace(seed(self.model, key)))
        except NotImplementedError as error:
            raise TargetError(
                f"The model {_name(self.model)!r} has an improper prior, from which nothing can be drawn. Give every "
                "latent site a proper distribution, or do without draws from the prior."
            ) from error

    def predictive(self, values, key: PRNGKeyArray) -> dict:
        sites = self._trace(seed(substitute(uncondition(self.model), data=dict(values)), key))
        observed = self.structure().observed
        return {name: sites[name]["value"] for name in observed}

    def observations(self) -> dict:
        sites = self._trace(_feasible(self.model, jr.key(0)))
        return {name: sites[name]["value"] for name in self.structure().observed}


def _feasible(model: Callable, key: PRNGKeyArray) -> Callable:
    """The model at some point of its support: improper priors have one too, and cannot be drawn from."""
    return substitute(seed(model, key), substitute_fn=init_to_feasible)


def _latent_position(sites: dict) -> dict:
    return {
        name: biject_to(site["fn"].support).inv(site["value"])
        for name, site in sites.items()
        if site["type"] == "sample" and not site["is_observed"]
    }


def _log_prob(site: dict):
    return site["fn"].log_prob(site["value"], *filter(None, [site["intermediates"]]))


def _scaled(site: dict, log_prob):
    return jnp.sum(log_prob if site["scale"] is None else site["scale"] * log_prob)


def _summed(site: dict):
    """The sum over all observations of a site.

    NumPyro checks each observation against the support, forwards and backwards, each time: 10 % of a logistic
    regression's gradient. Where the support has no parameters, one check of the data as a whole says the same, has no
    derivative, and can be lifted out of the sampler's loop.
    """
    fn = site["fn"]
    checks = fn._validate_args and hasattr(type(fn).log_prob, "__wrapped__")  # NumPyro's decorator of those that check
    if not checks or isinstance(fn, MaskedDistribution) or site["intermediates"] or jax.tree.leaves(fn.support):
        return _scaled(site, _log_prob(site))
    unchecked = copy.copy(fn)
    unchecked._validate_args = False
    inside = jnp.all(fn.support(site["value"]))
    return jnp.where(inside, _scaled(site, unchecked.log_prob(site["value"])), -jnp.inf)


def _unsupported(name: str, site: dict) -> str | None:
    """Why `site` has no density on continuous space, in words with the cure; None where it has."""
    if site["type"] == "param":
        return (
            f"`numpyro.param` site {name!r} has no prior. Give it one with `numpyro.sample`, or fix its value with "
            "`numpyro.handlers.substitute`."
        )
    if site["type"] == "plate":
        size, subsample_size = site["args"]
        if subsample_size is not None and subsample_size < size:
            return (
                f"plate {name!r} subsamples {subsample_size} of {size} rows, which makes the density random. "
                "Remove `subsample_size`; `train` has minibatches of its own."
            )
    if site["type"] == "sample" and not site["is_observed"] and site["fn"].support.is_discrete:
        return (
            f"latent site {name!r} is discrete ({type(site['fn']).__name__}). Sum it out of the model, or use a "
            "sampler for discrete variables."
        )
    return None


def _is_factor(site: dict) -> bool:
    return site["type"] == "sample" and isinstance(_innermost(site["fn"]), Unit)


def _innermost(distribution):
    while not isinstance(distribution, Unit) and hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution


def _plate_dims(site: dict, ndim: int) -> list[str | None]:
    """Axis names that plates give: one entry an axis, None where no plate speaks."""
    frames = [frame for frame in site["cond_indep_stack"] if frame.dim is not None]
    event = site["fn"].event_dim if site["type"] == "sample" else 0
    dims: list[str | None] = [None] * ndim
    for frame in frames:
        axis = ndim - event + frame.dim
        if 0 <= axis < ndim:
            dims[axis] = frame.name
    return dims if any(dims) else []


def _name(model) -> str:
    return getattr(model, "__qualname__", type(model).__name__)
