import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module


def lazy(package: str, homes: Mapping[str, Iterable[str]]) -> tuple[Callable, Callable]:
    """The `__getattr__` and `__dir__` of a package whose public names are imported when first used (PEP 562).

    - `package`: its `__name__`.
    - `homes`: the public names by the module that defines them, `{"_nuts": ("NUTS", "HMC")}`.

    A name that is not in the table is an `AttributeError`, as in any module.
    """
    home = {name: module for module, names in homes.items() for name in names}

    def __getattr__(name: str):
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        value = getattr(import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, value)  # the next use is an ordinary attribute
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home})

    return __getattr__, __dir__
