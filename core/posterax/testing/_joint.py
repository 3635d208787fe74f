"""JointModel: parameters and observations together, to be simulated from and conditioned on."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from .._keys import check_key, named
from .._target import Target


class JointModel(eqx.Module):
    """A prior and a simulator, with the posterior that belongs to them: what calibration is tested on.

    - `prior`: function of a key, one parameter: values by name.
    - `simulator`: function of (parameter, key), the observations: an array or any PyTree of arrays.
    - `posterior`: function of the observations, the `Target` of the parameter given them (or whatever else the sampler
      under test takes); None where it is not known, which is enough for estimators that never see a density.

    All three are called inside `jax.vmap` and `jax.jit`. From a NumPyro model: `JointModel.from_numpyro`.
    """

    prior: Callable[[PRNGKeyArray], Mapping[str, Any]]
    simulator: Callable[[Mapping[str, Any], PRNGKeyArray], Any]
    posterior: Callable[[Any], Any] | None = None

    @classmethod
    def from_numpyro(cls, model: Callable, *args: Any, observed: str, **kwargs: Any) -> "JointModel":
        """The joint of a NumPyro model `model(*args, **kwargs, name=None)` that observes one site.

        - `observed`: the site's name, which is also the keyword by which the model takes its observations.

        Raises `ValueError` where the model has no such site, or no latent one.
        """
        return _numpyro_joint(cls, model, args, kwargs, observed)

    def simulate(self, *, key: PRNGKeyArray) -> tuple[dict[str, Array], Any]:
        """One parameter from the prior and observations simulated at it."""
        key = check_key(key, "JointModel.simulate")
        parameter = dict(self.prior(named(key, "prior")))
        return parameter, self.simulator(parameter, named(key, "observed"))

    def target(self, observed: Any) -> Target:
        """The posterior given `observed`. Raises `ValueError` where the model does not know one."""
        if self.posterior is None:
            raise ValueError("This JointModel has no `posterior`. Give a function of the observations, a Target.")
        return self.posterior(observed)


def _numpyro_joint(cls, model, args, kwargs, observed: str) -> JointModel:
    from numpyro.handlers import block, seed, substitute, trace

    def sites(key, given: Mapping[str, Any]) -> dict[str, Any]:
        with block():  # a caller's own handlers must not see these sites
            run = trace(seed(substitute(model, dict(given)), key))
            found = run.get_trace(*args, **kwargs, **{observed: None})
        return {name: site["value"] for name, site in found.items() if site["type"] == "sample"}

    names = jax.eval_shape(lambda key: sites(key, {}), jr.key(0))
    if observed not in names or len(names) < 2:
        raise ValueError(
            f"`observed` must name a site that the model draws where it is called with {observed}=None, beside at "
            f"least one latent site; got {observed!r}, and the model draws {sorted(names)}."
        )

    def prior(key):
        return {name: value for name, value in sites(key, {}).items() if name != observed}

    def simulator(parameter, key):
        return sites(key, parameter)[observed]

    def posterior(data):
        return Target.from_numpyro(model, *args, **kwargs, **{observed: data})

    return cls(prior, simulator, posterior)


@eqx.filter_jit
def simulate_many(joint: JointModel, keys: Array) -> tuple[dict[str, Array], Any]:
    """Parameters and observations, one pair a key, stacked."""
    return jax.vmap(lambda key: joint.simulate(key=key))(keys)
