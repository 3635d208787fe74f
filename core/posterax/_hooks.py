"""Asks one plugin what it publishes, and judges the answers. Any fault is an exception."""

from collections import Counter
from inspect import getdoc
from types import ModuleType, SimpleNamespace
from typing import Any

import pluggy

from . import plugin as api
from ._errors import PluginError, near
from .plugin import ComponentSpec, DemoSpec, PluginInfo, SubcommandSpec

_HOOKS = {
    "posterax_components": ComponentSpec,
    "posterax_plugin_info": PluginInfo,
    "posterax_subcommands": SubcommandSpec,
    "posterax_demos": DemoSpec,
}


class _Manager(pluggy.PluginManager):
    def parse_hookimpl_opts(self, plugin, name):
        # pluggy 1.5 gets every name in `dir(plugin)`. A lazy one (PEP 562) is no hook, and would import JAX.
        if isinstance(plugin, ModuleType) and name not in vars(plugin):
            return None
        return super().parse_hookimpl_opts(plugin, name)


def ask(name: str, plugin: Any) -> dict[str, Any]:
    """What the plugin answers to each hook. It has a manager to itself: no fault of another can reach it."""
    manager = _Manager("posterax")
    manager.register(plugin, name)
    # First its API version: a plugin for another API may well have hooks and arguments that we do not know.
    hooks = iter(("posterax_plugin_info", "posterax_components", "posterax_subcommands", "posterax_demos"))
    info = _answer(manager, next(hooks), one=True) or _default_info(plugin)
    if info.api[0] != api.API_VERSION[0] or info.api > api.API_VERSION:
        wanted, have = (".".join(map(str, version)) for version in (info.api, api.API_VERSION))
        newer = info.api > api.API_VERSION
        cure = "Upgrade posterax" if newer else "Upgrade the plugin"
        return {
            "state": "incompatible",
            "info": info,
            "reason": f"it is written for plugin API {wanted}, and this posterax has {have}. {cure}",
        }
    answers = {hook: _answer(manager, hook) for hook in hooks}
    _refuse_unknown_hooks(manager, plugin)
    for hook, specs in answers.items():
        twice = [spec for spec, count in Counter(spec.name for spec in specs or ()).items() if count > 1]
        if twice:
            raise PluginError(f"{hook} returned the name {twice[0]!r} more than once; names are unique in a plugin")
    return {"info": info} | {hook.removeprefix("posterax_"): specs for hook, specs in answers.items()}


def _answer(manager: _Manager, hook: str, *, one: bool = False) -> Any:
    """The plugin's answer to one hook, judged. An absent optional hook answers nothing."""
    namespace: Any = SimpleNamespace(**{hook: getattr(api, hook)})
    manager.add_hookspecs(namespace)
    caller, spec = getattr(manager.hook, hook), _HOOKS[hook]
    if not caller.get_hookimpls():
        if hook == "posterax_components":
            raise _missing(manager)
        return None if one else ()
    wanted = f"a {spec.__name__}" if one else f"a list of {spec.__name__}"
    answer = next(iter(caller()), None)  # pluggy leaves None out
    if one:
        if not isinstance(answer, spec):
            raise PluginError(f"{hook} returned {answer!r}; it must return {wanted}")
        return answer
    if answer is None or isinstance(answer, (str, bytes)) or not hasattr(answer, "__iter__"):
        raise PluginError(f"{hook} returned {answer!r}; it must return {wanted}")
    specs = tuple(answer)
    for item in specs:
        if not isinstance(item, spec):
            raise PluginError(f"{hook} returned a list with {item!r} in it; it must return {wanted}")
    return specs


def _missing(manager: _Manager) -> PluginError:
    plugin = manager.get_plugins().pop()
    try:
        _refuse_unknown_hooks(manager, plugin)
    except PluginError as error:
        return error
    unmarked = getattr(plugin, "__dict__", {}).get("posterax_components", api.posterax_components)
    if unmarked is not api.posterax_components:  # which `from posterax.plugin import *` brings along
        return PluginError("posterax_components lacks its mark; write @hookimpl above it")
    return PluginError("it has no hook posterax_components; add one (an empty list is an answer)")


def _refuse_unknown_hooks(manager: _Manager, plugin) -> None:
    for caller in manager.get_hookcallers(plugin) or ():
        if caller.name not in _HOOKS and not all(impl.optionalhook for impl in caller.get_hookimpls()):
            raise PluginError(f"{caller.name} is no hook of posterax" + near(caller.name, _HOOKS))


def _default_info(plugin) -> PluginInfo:
    text = (getdoc(plugin) if isinstance(plugin, ModuleType) else None) or "(no summary)"
    return PluginInfo(text.strip().splitlines()[0])
