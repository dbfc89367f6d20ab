"""`nacre chat MODEL`: write with a generating model, or ask a classifier, line by line."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from nacre.cli.parser import add_store_option
from nacre.cli.predict import add_writing_options, writing
from nacre.cli.terminal import coloured

HELP = """
Answers line by line until an empty line or Ctrl-D: a decoder goes on writing, an encoder-decoder answers, a classifier
names the class, a tagger finds entities. Each turn stands alone: no model here has been taught to hold a conversation.

examples:
  nacre chat poet/pretrain --temperature 0.8
  nacre chat intents/tune
  echo "Good morning." | nacre chat translate/tune
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ref", metavar="MODEL", help="name, name@version, a folder, or model:NAME")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    add_writing_options(parser, temperature=0.8)
    add_store_option(parser)


def run(args: Namespace) -> int:
    how = writing(args)
    from nacre.lifecycle.evaluate.answer import check_answers
    from nacre.lifecycle.evaluate.predict import open_model
    from nacre.lifecycle.evaluate.testset import recorded_objective
    from nacre.progress import Silent
    from nacre.recipe.machine import resolve_device
    from nacre.recipe.references import open_store

    store = open_store(args.store)
    found = store.resolve(args.ref)
    store.verify(found)
    model = open_model(found.path, None, resolve_device(args.device), 1, Silent())
    check_answers(model.kernel.config)
    recorded, live = recorded_objective(found.path), sys.stdin.isatty()
    if live:
        print(
            f"{found.ref}: {model.kernel.config.family}, {model.kernel.config.head}. An empty line ends.",
            file=sys.stderr,
        )
    while True:
        try:
            text = input("> " if live else "").strip()
        except EOFError:
            return 0
        if not text:
            return 0
        print(_reply(model, text, recorded, how))
        sys.stdout.flush()


def _reply(model: Any, text: str, recorded: Any, how: Any) -> str:
    from nacre.lifecycle.evaluate.answer import answer

    one = answer(model, [text], recorded, how=how).answers[0]
    if "label" in one:
        return "  ".join(f"{item['label']} {item['probability']:.2f}" for item in one["top"])
    if "entities" in one:
        return "  ".join(f"{entity['type']}: {entity['text']}" for entity in one["entities"]) or "(no entity)"
    writes_on = model.kernel.config.layout == "decoder"
    return (coloured(text, "bold") if writes_on else "") + str(one["output"])
