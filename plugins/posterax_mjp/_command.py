"""`posterax mjp fit FILE.csv`: rates with intervals, draws as netCDF, and pictures."""

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Adds the command's arguments; see `posterax.plugin.SubcommandSpec`."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    fit = commands.add_parser(
        "fit",
        help="rates of a Markov jump process from a CSV file",
        description="Rates of a Markov jump process from panel data: one row an observation.",
    )
    fit.add_argument("file", metavar="FILE.csv", help="a CSV file with a header")
    fit.add_argument("--time", required=True, metavar="COLUMN", help="the column of times")
    fit.add_argument("--state", required=True, metavar="COLUMN", help="the column of states")
    fit.add_argument(
        "--subject", metavar="COLUMN", help="the column that tells subjects apart; else all rows are one's"
    )
    fit.add_argument("--states", nargs="+", metavar="STATE", help="all states in order; else those that occur, sorted")
    fit.add_argument("--covariates", nargs="+", default=[], metavar="COLUMN", help="columns that rates depend on")
    fit.add_argument("--entered", nargs="+", default=[], metavar="STATE", help="states whose time of entry is exact")
    fit.add_argument("--exact", action="store_true", help="all times are those of jumps")
    fit.add_argument("--jumps", nargs="+", metavar="FROM-TO", help="the jumps that can be made; else all")
    fit.add_argument("--noise", metavar="SHARE", help="the share of wrong labels, or 'estimate'")
    fit.add_argument("--method", default="ml", choices=("ml", "map", "laplace", "nuts"), help="default: %(default)s")
    fit.add_argument("--level", type=float, default=0.95, help="of intervals (default: %(default)s)")
    fit.add_argument("--sort", action="store_true", help="sort the rows of each subject by time")
    fit.add_argument("--seed", type=int, default=0, help="of draws (default: %(default)s)")
    fit.add_argument("--output", default="mjp-output", metavar="DIR", help="where to write (default: %(default)s)")
    return run


def run(args: argparse.Namespace) -> int:
    """Fits, prints and writes; exit status 1 with one line where the data or arguments are wrong."""
    from posterax import PosteraxWarning

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", PosteraxWarning)
            _fit(args)
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        words = error.args[0] if isinstance(error, KeyError) else error
        print(f"posterax: error: {words}", file=sys.stderr)
        return 1
    for warning in said:
        if issubclass(warning.category, PosteraxWarning):
            print(f"posterax: note: {warning.message}", file=sys.stderr)
    return 0


def _fit(args: argparse.Namespace) -> None:
    import jax.random as jr
    import pandas as pd
    from posterax._arviz import write_netcdf

    from ._answers_draws import answers
    from ._emissions import FlippedLabels, TrueLabels
    from ._estimator import MJPLikelihood
    from ._fit_checks import prevalence
    from ._plots import plot_intervals, plot_prevalence
    from ._readers import read_panel

    frame, states = _read(args)
    panel = read_panel(
        frame, time=args.time, state=args.state, subject=args.subject, states=states, covariates=args.covariates,
        exact=args.exact, entered=_like(frame[args.state], args.entered), sort=args.sort,
    )  # fmt: skip
    emission = TrueLabels()
    if args.noise is not None:
        emission = FlippedLabels(None if args.noise == "estimate" else float(args.noise))
    model = MJPLikelihood(method=args.method, edges=_edges(args.jumps, panel.states), emission=emission)
    one, two, three = jr.split(jr.key(args.seed), 3)
    fitted = model.fit(panel, key=one)
    assert fitted.report is not None
    draws = answers(fitted, fitted.infer(key=two))
    table = fitted.table(args.level, key=two)
    with pd.option_context("display.width", 120, "display.max_rows", 500):
        print(f"{panel}\n\n{table.to_string(float_format='{:.4g}'.format)}\n")
    print(f"-2 log likelihood {-2 * fitted.report['log_likelihood']:.4f}, {fitted.report['num_parameters']} parameters")
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "estimates.csv")
    write_netcdf(draws.to_datatree(key=three), folder / "draws.nc")
    plot_intervals(table.loc[["rates"]], args.level).savefig(folder / "rates.png", dpi=150)
    written = ["estimates.csv", "draws.nc", "rates.png"]
    if panel.is_known and not args.covariates:
        times = [panel.horizon * share / 20 for share in range(21)]
        plot_prevalence(prevalence(fitted, panel, times)).savefig(folder / "prevalence.png", dpi=150)
        written.append("prevalence.png")
    print(f"wrote {', '.join(written)} to {folder}")


def _read(args: argparse.Namespace):
    import pandas as pd

    if not Path(args.file).is_file():
        raise FileNotFoundError(f"There is no file {args.file!r}.")
    frame = pd.read_csv(args.file)
    if args.state not in frame.columns:
        raise KeyError(f"There is no column {args.state!r}; there are {list(frame.columns)}.")
    return frame, None if args.states is None else _like(frame[args.state], args.states)


def _like(column, words: list[str]) -> list:
    """Words of the command line as values of the column, numbers where these are numbers."""
    values = {str(value): value for value in column.dropna().unique()}
    return [values.get(word, word) for word in words]


def _edges(jumps: list[str] | None, states: tuple[str, ...]):
    import numpy as np

    if jumps is None:
        return None
    edges = np.zeros((len(states), len(states)), bool)
    for jump in jumps:
        ends = [(i, j) for i, a in enumerate(states) for j, b in enumerate(states) if jump == f"{a}-{b}" and i != j]
        if not ends:
            raise ValueError(f"--jumps: {jump!r} is no FROM-TO of the states {', '.join(states)}.")
        edges[ends[0]] = True
    return edges
