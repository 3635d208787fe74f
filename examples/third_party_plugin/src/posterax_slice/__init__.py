"""Elliptical slice sampling: no step size, no gradient, nothing to tune."""

from typing import TYPE_CHECKING

from posterax.plugin import ComponentSpec, PluginInfo, hookimpl, lazy

if TYPE_CHECKING:
    from ._elliptical import EllipticalSlice as EllipticalSlice

__all__ = ["EllipticalSlice"]
__getattr__, __dir__ = lazy(__name__, {"_elliptical": ("EllipticalSlice",)})


@hookimpl
def posterax_plugin_info():
    return PluginInfo("Elliptical slice sampling.", api=(1, 0))


@hookimpl
def posterax_components():
    return [
        ComponentSpec(
            "elliptical-slice",
            kind="sampler",
            target="posterax_slice._elliptical:EllipticalSlice",
            summary="Elliptical slice sampling: no step size, no gradient, nothing to tune.",
            tags={"exact", "gradient-free"},
            source="Murray et al. (2010), arXiv:1001.0175; Nishihara et al. (2014), arXiv:1210.7477",
        )
    ]
