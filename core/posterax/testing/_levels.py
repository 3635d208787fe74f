"""How thoroughly a run checks. No imports: the command line must know this without JAX."""

SIZES = {"smoke": 1, "standard": 4, "nightly": 16}
"""How many times a check's own size a level uses."""

LEVELS = tuple(SIZES)
"""From quick to thorough: a level makes the checks of those before it too, on larger samples."""
