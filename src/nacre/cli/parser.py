"""argparse with Nacre's errors: an unknown option names the closest, nothing is abbreviated, nothing exits alone."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from nacre.errors import UsageError, closest


class VerbParser(argparse.ArgumentParser):
    """The parser of one verb. Raises UsageError where argparse would print and exit."""

    def __init__(self, verb: str, text: str) -> None:
        super().__init__(
            prog=f"nacre {verb}",
            description=text.strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", remedy=self._remedy(message))

    def _remedy(self, message: str) -> str:
        choice = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if choice:
            return closest(choice[1], re.findall(r"'(.*?)'", choice[2]))
        words = re.findall(r"unrecognized arguments: (\S+)", message)
        options = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        if words and words[0].startswith("-"):
            return closest(words[0].partition("=")[0], options)
        return f"{self.prog} --help"


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """`RECIPE` and `--set`: what is planned or run."""
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="STEP.KEY=VALUE",
        help="override a value of a step's config; may be repeated",
    )


def add_store_option(parser: argparse.ArgumentParser) -> None:
    """`--store`: where artifacts live."""
    parser.add_argument("--store", metavar="DIR", help="where artifacts live (default: $NACRE_HOME, else .nacre)")


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """`--json`: the object that the Python API returns."""
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
