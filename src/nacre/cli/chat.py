"""`nacre chat MODEL`: talk to a model that was taught to, write with one that goes on, or ask a classifier."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from nacre.cli.parser import add_store_option
from nacre.cli.predict import add_writing_options, writing
from nacre.cli.terminal import coloured
from nacre.errors import UsageError

HELP = """
Answers line by line until an empty line or Ctrl-D. A model with a chat template (one that tune.sft made, say) holds a
conversation and hears what was said before; of others each turn stands alone: a decoder goes on writing, an
encoder-decoder answers, a classifier names the class, a tagger finds entities.

examples:
  nacre chat talk/tune --system "Answer in one sentence."
  nacre chat poet/pretrain --temperature 0.8
  nacre chat intents/tune
  echo "Good morning." | nacre chat translate/tune
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ref", metavar="MODEL", help="name, name@version, a folder, or model:NAME")
    parser.add_argument("--system", metavar="TEXT", help="a system turn, for a model with a chat template")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    add_writing_options(parser, temperature=0.8)
    add_store_option(parser)


def run(args: Namespace) -> int:
    how = writing(args)
    from nacre.lifecycle.evaluate.answer import check_answers
    from nacre.lifecycle.evaluate.converse import Talk
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
    talk = Talk.open(Path(found.path), model, how, args.system)
    if talk is None and args.system is not None:
        raise UsageError(f"--system: {found.ref} has no chat template", remedy="leave it out, or tune it with tune.sft")
    if live:
        kind = "conversation" if talk else model.kernel.config.head
        print(f"{found.ref}: {model.kernel.config.family}, {kind}. An empty line ends.", file=sys.stderr)
    while True:
        try:
            text = input("> " if live else "").strip()
        except EOFError:
            return 0
        if not text:
            return 0
        print(_reply(model, text, recorded, how) if talk is None else _said(talk, text))
        sys.stdout.flush()


def _said(talk: Any, text: str) -> str:
    before = talk.forgotten
    answer: str = talk.say(text)
    if talk.forgotten > before:
        print(f"note: {talk.forgotten} turns no longer fit and are forgotten", file=sys.stderr)
    return answer


def _reply(model: Any, text: str, recorded: Any, how: Any) -> str:
    from nacre.lifecycle.evaluate.answer import answer

    one = answer(model, [text], recorded, how=how).answers[0]
    if "label" in one:
        return "  ".join(f"{item['label']} {item['probability']:.2f}" for item in one["top"])
    if "entities" in one:
        return "  ".join(f"{entity['type']}: {entity['text']}" for entity in one["entities"]) or "(no entity)"
    writes_on = model.kernel.config.layout == "decoder"
    return (coloured(text, "bold") if writes_on else "") + str(one["output"])
