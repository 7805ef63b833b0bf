"""The command `isc`: one command for everything, whose parts are loaded when they are used."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from isc import __version__
from isc.cli.console import INTERRUPTED, NOTHING_HALF, Group, interrupted, reporting, with_version

COMMANDS = {  # name: where it is, and its line in the help
    "find": ("isc.cli.find:find", "find the photos that suspects were made from"),
    "duplicates": ("isc.cli.duplicates:duplicates", "find photos in a folder that show the same"),
    "index": ("isc.cli.index:index", "keep descriptors of photos, and find among them at any time"),
    "caption": ("isc.cli.words:caption", "write captions and alternative texts for photos"),
    "words": ("isc.cli.words:words", "match captions with pictures, check and judge submissions"),
    "products": ("isc.cli.products:products", "find the items of a shop in clips, check and judge submissions"),
    "serve": ("isc.cli.serve:serve", "review matches: pictures in, people decide"),
    "feedback": ("isc.cli.feedback:feedback", "what people decided, as labelled pairs for the models"),
    "demo": ("isc.cli.demo:demo", "see the whole chain at work on the sample photos"),
    "train": ("isc.cli.verbs:train", "photos → a trained model (Hydra: key=value)"),
    "extract": ("isc.cli.verbs:extract", "photos → descriptors (Hydra: key=value)"),
    "match": ("isc.cli.verbs:match", "descriptors → pairs, judged, with a report (Hydra: key=value)"),
    "benchmark": ("isc.cli.verbs:benchmark", "photos → a benchmark of edited copies (Hydra: key=value)"),
    "calibrate": ("isc.cli.calibrate:calibrate", "fit probabilities and thresholds to labelled pairs"),
    "normalize": ("isc.cli.normalize:normalize", "find the best normalisation of descriptors"),
    "fusion": ("isc.cli.fusion:fusion", "fit the probability of a copy to distances and pixels"),
    "export": ("isc.cli.export:export", "write a model as an ONNX file"),
}
"""The verbs that Hydra reads: their arguments are passed on as they are."""
HYDRA = frozenset(("train", "extract", "match", "benchmark"))


class Commands(Group):
    """The commands by name; only the one that is called is imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        place, about = COMMANDS[cmd_name]
        if cmd_name in HYDRA:
            return _hydra(cmd_name, place, about)
        command: click.Command = pkgutil.resolve_name(place)
        return with_version(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            interrupted(ctx.meta.get(INTERRUPTED, NOTHING_HALF))


def _hydra(name: str, place: str, about: str) -> click.Command:
    """Return a command that passes its arguments to a verb of Hydra, which answers --help itself."""

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
        found: list[str] = pkgutil.resolve_name("isc.cli.verbs:complete")(name, incomplete)
        return found

    @click.command(name, help=about, context_settings={"ignore_unknown_options": True}, add_help_option=False)
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED, shell_complete=complete)
    def verb(arguments: Sequence[str]) -> None:
        sys.argv = [f"isc {name}", *arguments]
        run: Callable[[], None] = pkgutil.resolve_name(place)
        run()

    return verb


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="isc %(version)s")
def isc() -> None:
    """Find edited copies of known photos.

    \b
    isc find PHOTOS SUSPECTS       which of these are copies of my photos?
    isc duplicates PHOTOS          which photos in this folder are the same?

    Shell completion: eval "$(_ISC_COMPLETE=bash_source isc)"; also zsh_source and fish_source.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command isc: bad input ends with one line on stderr and status 2, Ctrl-C with status 130."""
    with reporting():
        isc.main(args=None if argv is None else list(argv), prog_name="isc", standalone_mode=False)


if __name__ == "__main__":
    main()
