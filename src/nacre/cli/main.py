"""The `nacre` command: a static table of verbs, each a module that is imported when its verb is used.

A verb's module has `HELP` (what it does, with examples), `add_arguments(parser)` and `run(args) -> int`, the exit code:
0 done, 1 failed, 2 wrong usage or input, 3 a gate said no, 130 interrupted. Results go to stdout, all else to stderr.
"""

from __future__ import annotations

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

import nacre
from nacre.cli.parser import VerbParser
from nacre.errors import NacreError, UsageError, closest

# verb -> (module, one line for `nacre --help`)
VERBS: dict[str, tuple[str, str]] = {
    "run": ("nacre.cli.run", "build what a recipe describes; skips what is made, goes on from what was cut short"),
    "plan": ("nacre.cli.plan", "say what a run would do, and why, without doing it"),
    "ladder": ("nacre.cli.ladder", "solve one task at every tier: quality, latency, cost and ownership in one table"),
    "audit": ("nacre.cli.audit", "say, stage by stage, whether a model or data set derives from another, and how sure"),
    "show": ("nacre.cli.show", "say what an artifact is: origin, cost, metrics; a model's anatomy; a data set's drops"),
    "trace": ("nacre.cli.trace", "walk an artifact back to raw data, with licences and what has changed since"),
    "predict": ("nacre.cli.predict", "apply a tuned model to text"),
    "search": ("nacre.cli.search", "find passages in an index or a folder of documents, and say where they stand"),
    "chat": ("nacre.cli.chat", "write with a generating model"),
    "eval": ("nacre.cli.eval", "measure a model on a data set"),
    "serve": ("nacre.cli.serve", "put models behind one OpenAI-compatible address, with keys, limits and a ledger"),
    "page": ("nacre.cli.page", "look at artifacts, lineage, runs and reports in a browser, and try the models"),
    "preview": ("nacre.cli.preview", "show what a file of conversations or preferences teaches, token by token"),
    "prompt": ("nacre.cli.prompt", "list, search, render, compare and rewrite prompt files"),
    "data": ("nacre.cli.data", "list, get and check data sets"),
    "card": ("nacre.cli.card", "write a model card from the lineage of an artifact"),
    "doctor": ("nacre.cli.doctor", "say what this machine has, what is missing, and what that costs"),
}

# verb and object -> module: objects that are verbs of their own, with their own options
OBJECTS: dict[tuple[str, str], str] = {
    ("serve", "keys"): "nacre.cli.serve_keys",
    ("serve", "usage"): "nacre.cli.serve_usage",
    ("serve", "deploy"): "nacre.cli.serve_deploy",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line; gives its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    _let_print_anything()
    try:
        return _dispatch(words)
    except BrokenPipeError:  # the reader has gone, as in `nacre show X | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(f"\ninterrupted: nothing complete is lost; to go on: nacre {_quoted(words)}", file=sys.stderr)
        return 130
    except Exception as error:  # the outermost frame
        if "--debug" in words:
            raise
        return _explain(error, words)


def _dispatch(words: list[str]) -> int:
    rest = [word for word in words if word != "--debug"]
    if len(rest) < len(words):
        logging.getLogger("nacre").setLevel(logging.DEBUG)
    if not rest or rest[0] in ("-h", "--help", "help"):
        print(top_help())
        return 0
    if rest[0] in ("-V", "--version"):
        print(f"nacre {nacre.__version__}")
        return 0
    verb, *arguments = rest
    return run_verb(verb, arguments)


def run_verb(verb: str, arguments: Sequence[str]) -> int:
    """Parses the arguments of one verb and runs it."""
    if verb not in VERBS:
        what = "option" if verb.startswith("-") else "verb"
        raise UsageError(f"unknown {what} {verb!r}", remedy=f"{closest(verb, VERBS)} (nacre --help)")
    name = VERBS[verb][0]
    if arguments and (verb, arguments[0]) in OBJECTS:
        name, verb, arguments = OBJECTS[verb, arguments[0]], f"{verb} {arguments[0]}", arguments[1:]
    if find_spec(name) is None:
        raise UsageError(f"nacre {verb} is not part of this version", remedy="nacre --help lists what is")
    module = import_module(name)
    parser = VerbParser(verb, module.HELP)
    module.add_arguments(parser)
    args: Namespace = parser.parse_args(list(arguments))
    return int(module.run(args))


def top_help() -> str:
    """What `nacre --help` prints."""
    width = max(len(verb) for verb in VERBS) + 2
    lines = [f"  {verb:<{width}}{line}" for verb, (_, line) in VERBS.items()]
    return "\n".join(
        [
            "usage: nacre VERB [OBJECT] [--option ...]",
            "",
            "Build, compare and audit products on language models: every artifact carries its lineage.",
            "",
            *lines,
            "",
            "  nacre VERB --help   options and examples of a verb",
            "  --json              the result as one JSON object on stdout (every verb but chat)",
            "  --debug             a traceback with every error",
            "  --version           the version of Nacre",
        ]
    )


def _explain(error: Exception, words: Sequence[str]) -> int:
    from pathlib import Path

    from nacre.recipe.failures import translate

    known = translate(error, Path(os.environ.get("NACRE_HOME", ".nacre")))
    if known is None:
        place = _last_place(error)
        print(f"error: {type(error).__name__}: {error} ({place})", file=sys.stderr)
        print(f"  remedy: a fault in Nacre; report it with: nacre {_quoted(words)} --debug", file=sys.stderr)
        return 1
    print(f"error: {known.message}\n  remedy: {known.remedy}", file=sys.stderr)
    return known.exit_code if isinstance(known, NacreError) else 1


def _last_place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "unknown place"


def _quoted(words: Sequence[str]) -> str:
    from shlex import join

    return join(words)


def _let_print_anything() -> None:
    """A terminal with a narrow encoding shows escapes instead of failing on a Chinese label."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
