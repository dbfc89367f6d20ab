"""`nacre predict MODEL TEXT...`: apply a model to texts."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nacre.cli.parser import add_json_option, add_store_option
from nacre.cli.terminal import coloured, table
from nacre.errors import DataError, UsageError

if TYPE_CHECKING:
    from nacre.lineage.store import Resolved

Answers = tuple[list[dict[str, Any]], Mapping[str, int]]  # and what was not read, counted by reason
_CITATIONS = 3

HELP = """
Applies a model to texts, by its head: a classifier names a class, a tagger finds entities, a decoder goes on writing,
an encoder-decoder answers (translates). A rung of a ladder answers its task, whatever its tier. Texts come as
arguments, from --file (text, JSON lines, CSV ...; field `text`), or line by line from standard input.

examples:
  nacre predict intents/tune "where is my parcel" "忘记密码了怎么办"
  nacre predict intents/tune --file questions.jsonl --json > answers.json
  nacre predict translate/tune "Good morning." --temperature 0
  nacre predict ladder/desk/retrieval "where is my parcel"
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ref", metavar="MODEL", help="name, name@version, a folder, or model:NAME")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text; standard input when none is given")
    parser.add_argument("--file", metavar="FILE", type=Path, help="a data file with a field `text`")
    parser.add_argument("--top", type=int, default=3, help="classes to list per text (default: 3)")
    parser.add_argument("--batch", type=int, default=32, help="texts at a time (default: 32)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    add_writing_options(parser, temperature=0.0)
    add_store_option(parser)
    add_json_option(parser)


def add_writing_options(parser: ArgumentParser, temperature: float) -> None:
    """Options of models that write."""
    parser.add_argument("--max-tokens", type=int, default=128, help="longest answer in tokens (default: 128)")
    parser.add_argument("--temperature", type=float, default=temperature, help=f"0 is greedy (default: {temperature})")
    parser.add_argument("--top-k", type=int, help="draw from the k likeliest tokens")
    parser.add_argument("--top-p", type=float, help="draw from the likeliest tokens of this probability together")
    parser.add_argument("--min-p", type=float, help="draw from tokens of at least this share of the likeliest")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, help="above 1 discourages repetition")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end at this text; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")


def run(args: Namespace) -> int:
    for name in ("top", "batch", "max_tokens"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(args, name)}: too small", remedy="give 1 or more")
    texts = _texts(args)
    from nacre.ladder.using import is_rung
    from nacre.recipe.references import open_store

    store = open_store(args.store)
    found = store.resolve(args.ref)
    store.verify(found)
    answers, truncated = _of_rung(args, found, texts) if is_rung(found.path) else _of_model(args, found, texts)
    for reason, count in truncated.items():
        print(f"note: {reason}: {count:,} of {len(texts):,}", file=sys.stderr)
    if args.json:
        plain = {"model": found.ref, "answers": answers, "truncated": dict(truncated)}
        print(json.dumps(plain, ensure_ascii=False, indent=2))
    else:
        print("\n".join(_lines(answers)))
    return 0


def _of_rung(args: Namespace, found: Resolved, texts: list[str]) -> Answers:
    from nacre.engine.room import EngineRoom
    from nacre.ladder.using import answer_texts
    from nacre.recipe.machine import resolve_device

    return answer_texts(found.path, texts, EngineRoom(device=resolve_device(args.device)), top=args.top), {}


def _of_model(args: Namespace, found: Resolved, texts: list[str]) -> Answers:
    from nacre.lifecycle.evaluate.answer import answer
    from nacre.lifecycle.evaluate.predict import open_model
    from nacre.lifecycle.evaluate.testset import recorded_objective
    from nacre.progress import Silent
    from nacre.recipe.machine import resolve_device

    model = open_model(found.path, None, resolve_device(args.device), args.batch, Silent())
    answered = answer(model, texts, recorded_objective(found.path), top=args.top, how=writing(args))
    return answered.answers, answered.truncated


def writing(args: Namespace) -> Any:
    """The generation settings of a command line."""
    from nacre.kernel.generate import GenerationConfig
    from nacre.kernel.sampling import SamplingConfig

    sampling = SamplingConfig(args.temperature, args.top_k, args.top_p, args.min_p, args.repetition_penalty)
    return GenerationConfig(args.max_tokens, sampling, tuple(args.stop), args.seed)


def _texts(args: Namespace) -> list[str]:
    if args.file is not None and args.texts:
        raise UsageError("texts come from arguments or from --file, not both", remedy="leave one of them out")
    if args.file is not None:
        from nacre.data.read import ReadConfig, read

        return [str(row["text"]) for row in read(args.file, ReadConfig(required=("text",)))]
    if args.texts:
        return list(args.texts)
    if sys.stdin.isatty():
        raise UsageError("no text was given", remedy='nacre predict MODEL "a text", or --file, or pipe texts in')
    try:
        lines = [line.strip() for line in sys.stdin.read().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(
            f"standard input is not UTF-8 ({error.reason} at byte {error.start})", remedy="use --file"
        ) from error
    if not lines:
        raise DataError("standard input holds no text", remedy="pipe one text per line")
    return lines


def _lines(answers: list[dict[str, Any]]) -> Iterator[str]:
    if "label" in answers[0]:
        rows = [[one["text"], one["label"] or f"(none: {one['problem']})", _others(one)] for one in answers]
        yield table(rows, ["text", "class", "probabilities"])
        yield from _cited(answers)
        return
    for one in answers:
        if "entities" in one:
            entities = "  ".join(f"{entity['type']}: {entity['text']}" for entity in one["entities"])
            yield f"{one['text']}\n  {entities or '(no entity)'}"
        elif "ranked" in one:
            yield f"{coloured(one['text'], 'bold')}\n  {'  '.join(one['ranked']) or '(nothing found)'}"
        else:
            yield f"{coloured(one['text'], 'bold')}\n{one['output']}" + _remark(one)


def _others(one: Mapping[str, Any]) -> str:
    return "  ".join(f"{item['label']} {item['probability']:.2f}" for item in one["top"])


def _cited(answers: list[dict[str, Any]]) -> Iterator[str]:
    for one in answers:
        for citation in one.get("citations", [])[:_CITATIONS]:
            place = f"{citation['source']}:{citation['start']}-{citation['end']}"
            yield f"  {one['text']}  <-  {citation['text']}  ({place})"


def _remark(one: Mapping[str, Any]) -> str:
    if one.get("problem"):
        return f"\n(no answer: {one['problem']})"
    return "" if one.get("stopped", "end") in ("end", "stop") else f"\n(cut: {one['stopped']})"
