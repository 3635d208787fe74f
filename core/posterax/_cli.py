"""The command `posterax`. It answers fast and without JAX, also when JAX or a plugin is broken."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout

from ._component import resolve
from ._discovery import PluginRecord
from ._errors import PluginError, PosteraxError, describe, sentence
from ._pool import cores
from ._registry import Registry, current
from .plugin import SubcommandSpec
from .testing._levels import LEVELS

_EPILOG = "exit status: 0 fine, 1 an error (one line says which), 2 wrong usage"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 fine, 1 an error, 2 wrong usage.

    - `argv`: the arguments, by default the process's own.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parser(arguments).parse_args(arguments)
        status = args.run(args) or 0
        sys.stdout.flush()
        return status
    except PosteraxError as error:
        print(f"posterax: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more on leaving.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


class _Version(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        from ._version import __version__

        print(f"posterax {__version__}")
        parser.exit()


def _parser(arguments: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "posterax",
        description="Samplers, estimators and objectives that compose: what is installed, and a demo.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, add in _BUILT_IN.items():
        add(commands, name)
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    if wanted not in _BUILT_IN and "--version" not in arguments:
        with redirect_stdout(sys.stderr):  # a plugin that prints when imported must not spoil our output
            _add_plugin_commands(commands, wanted)
    return parser


def _plugins(commands, name: str) -> None:
    parser = commands.add_parser(
        name,
        help="list the plugins, what they publish, and what is wrong with them",
        description="List the installed plugins. A broken one is shown with the reason, and hides no other.",
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.add_argument("--verbose", action="store_true", help="add targets, import times and tracebacks")

    def run(args: argparse.Namespace) -> None:
        from . import _cli_plugins

        _cli_plugins.plugins(_filled(), as_json=args.json, verbose=args.verbose)

    parser.set_defaults(run=run)


def _info(commands, name: str) -> None:
    parser = commands.add_parser(
        name,
        help="show versions and platform, or all about one plugin or component",
        description="Show the versions that matter, or all about one plugin or component.",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a plugin's id, or a component such as nuts or numpyro:nuts"
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.add_argument("--devices", action="store_true", help="add the devices that JAX finds (imports JAX)")

    def run(args: argparse.Namespace) -> None:
        from . import _cli_info

        if args.name is None:
            _cli_info.environment(_filled(), as_json=args.json, devices=args.devices)
        else:
            _cli_info.one(_filled(), args.name, as_json=args.json)

    parser.set_defaults(run=run)


def _demo(commands, name: str) -> None:
    parser = commands.add_parser(
        name,
        help="run the demo of every plugin and write a page with the results",
        description="Run the demo sections of the installed plugins and write a page with the results.",
    )
    parser.add_argument("--output", metavar="DIR", default="demo-output", help="where to write (default: %(default)s)")
    parser.add_argument(
        "--section", metavar="NAME", action="append", help="only this section; may be given more than once"
    )
    parser.add_argument(
        "--jobs", metavar="N", type=int, default=min(2, cores()),
        help="sections to run side by side (default: %(default)s)",
    )  # fmt: skip

    def run(args: argparse.Namespace) -> int | None:
        from . import _demo

        return _demo.main(output=args.output, sections=args.section, processes=args.jobs)

    parser.set_defaults(run=run)


def _check(commands, name: str) -> None:
    parser = commands.add_parser(
        name,
        help="check whether the components of a plugin do what their tags promise",
        description="Make the checks of the conformance kit that the tags of a plugin's components call for.",
    )
    parser.add_argument(
        "name", metavar="PLUGIN[:NAME]", help="a plugin's id, or one component such as numpyro:nuts or nuts"
    )
    parser.add_argument(
        "--level",
        choices=LEVELS,
        default="smoke",
        help="how thoroughly: half a minute a component, minutes, or a night (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="all numbers of a run follow from it (default: %(default)s)"
    )
    parser.add_argument(
        "--only", nargs="+", action="extend", default=[], metavar="CHECK", help="make only the checks of these names"
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.add_argument("--list", action="store_true", help="only show which checks would be made")

    def run(args: argparse.Namespace) -> int:
        from . import _cli_check

        return _cli_check.check(
            _filled(), args.name, level=args.level, seed=args.seed, only=args.only, as_json=args.json,
            as_list=args.list, usage=parser.error,
        )  # fmt: skip

    parser.set_defaults(run=run)


def _seed(text: str) -> int:
    seed = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= seed < 2**32:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 2**32 - 1; got {text!r}")
    return seed


def _new(commands, name: str) -> None:
    parser = commands.add_parser(
        name,
        help="write a plugin project to begin with",
        description="Write a plugin project that works: a sampler, an estimator, an objective, and their tests.",
    )
    parser.add_argument("name", metavar="NAME", help="the plugin's id, such as elliptical-slice")
    parser.add_argument(
        "--output", metavar="DIR", default=".", help="where to put its folder, posterax-NAME (default: here)"
    )

    def run(args: argparse.Namespace) -> None:
        from . import _cli_new

        _cli_new.new(_filled(), args.name, output=args.output, usage=parser.error)

    parser.set_defaults(run=run)


_BUILT_IN: dict[str, Callable] = {"plugins": _plugins, "info": _info, "check": _check, "new": _new, "demo": _demo}


def plugin_commands() -> tuple[dict[str, tuple[SubcommandSpec, PluginRecord]], list[str]]:
    """The commands that plugins bring, by name, and a sentence for each that cannot be used."""
    claims: dict[str, list] = {}
    for record in current().plugins():
        for spec in record.subcommands:
            claims.setdefault(spec.name, []).append((spec, record))
    usable, refused = {}, []
    for name, several in sorted(claims.items()):
        owners = " and ".join(f"the plugin {record.id!r} ({record.owner})" for _, record in several)
        if name in _BUILT_IN:
            refused.append(f"The command {name!r} is posterax's own; that of {owners} is not used.")
        elif len(several) > 1:
            refused.append(f"The command {name!r} is brought by {owners}; none is used. Disable all but one.")
        else:
            usable[name] = several[0]
    return usable, refused


def _add_plugin_commands(commands, wanted: str | None) -> None:
    usable, refused = plugin_commands()
    for line in refused:
        print(f"posterax: note: {line}", file=sys.stderr)
    for name, (spec, record) in usable.items():
        parser = commands.add_parser(name, help=spec.summary, description=spec.summary)
        if name == wanted:  # the only one whose code is imported
            parser.set_defaults(run=_configured(spec, record, parser))
    if wanted is not None and wanted not in usable:
        for record in current().plugins():
            if record.state in ("error", "incompatible"):
                print(
                    f"posterax: note: the plugin {record.id!r} is not used: {sentence(record.reason or '')}",
                    file=sys.stderr,
                )


def _configured(spec: SubcommandSpec, record: PluginRecord, parser: argparse.ArgumentParser) -> Callable:
    what = f"the command {spec.name!r} of the plugin {record.id!r} ({record.owner})"
    configure = resolve(spec, record)
    try:
        run = configure(parser)
    except Exception as error:
        raise PluginError(f"{what} failed: {describe(error)}") from error
    if not callable(run):
        raise PluginError(f"{what} is broken: {spec.target} must return the function to run; got {run!r}")
    return run


def _filled() -> Registry:
    """The registry, read now, so that a plugin that prints when imported does not spoil our output."""
    registry = current()
    with redirect_stdout(sys.stderr):
        registry.plugins()
    return registry


if __name__ == "__main__":
    sys.exit(main())
