"""`nacre preview DATA`: what would be trained, token by token, before it is trained."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nacre.cli.parser import add_json_option, add_store_option
from nacre.cli.terminal import coloured, number, table, truncate
from nacre.errors import UsageError

if TYPE_CHECKING:
    from nacre.tiers.tune.previewing import Preview, Sequence, Statistics

HELP = """
Shows what a row of conversations or of preferences teaches: every token, and whether it is trained. Trained tokens
stand between « and », in colour on a terminal; | separates tokens, ⏎ is the end of a line, and ∙ a token that is part
of the character before it. With --stats the whole file in figures: share of trained tokens, lengths, what is cut and
dropped and why.

examples:
  nacre preview talks.jsonl --tokenizer ./model
  nacre preview data:sft-identity --tokenizer ./model --template chatml --add-tokens --row 3
  nacre preview pairs.jsonl --tokenizer ./model --objective preference
  nacre preview talks.jsonl --tokenizer ./model --stats --context 1024 --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="a data file or folder, name, name@version, or data:NAME")
    parser.add_argument("--tokenizer", required=True, metavar="REF", help="a model or tokenizer: folder or name")
    parser.add_argument("--template", metavar="NAME", help="a shipped template (default: the tokenizer's own)")
    parser.add_argument("--add-tokens", action="store_true", help="give the tokenizer the template's tokens it lacks")
    parser.add_argument("--row", type=int, default=1, metavar="N", help="which row, from 1 (default: 1)")
    parser.add_argument("--objective", choices=("sft", "preference"), default="sft", help="default: sft")
    parser.add_argument("--trained", choices=("assistant", "last", "all"), help="which turns (default: assistant)")
    parser.add_argument("--context", type=int, default=2048, help="tokens of a sequence (default: 2048)")
    parser.add_argument("--stats", action="store_true", help="the whole file in figures")
    add_store_option(parser)
    add_json_option(parser)


def run(args: Namespace) -> int:
    pairs = args.objective == "preference"
    if args.row < 1:
        raise UsageError(f"--row {args.row}: rows are counted from 1", remedy="give 1 or more")
    if pairs and args.trained is not None:
        raise UsageError(
            "--trained does not apply to preferences: their last answers are trained", remedy="leave it out"
        )
    from nacre.data.chat.template import ChatTemplate
    from nacre.data.read import read
    from nacre.recipe.references import open_store
    from nacre.tiers.tune.previewing import preview, statistics
    from nacre.train.objectives.config_align import SftConfig

    store = open_store(args.store)
    path, folder = store.resolve(args.data).path, Path(store.resolve(args.tokenizer).path)
    template = ChatTemplate.open(folder, args.template, add_tokens=args.add_tokens)
    config = SftConfig(context=args.context, trained="last" if pairs else args.trained or "assistant")
    if args.stats:
        found: Preview | Statistics = statistics(read(path), template, config, pairs=pairs)
    else:
        found = preview(read(path), args.row, template, config, pairs=pairs)
    if args.json:
        print(json.dumps(found.to_dict(), ensure_ascii=False, indent=2))
    else:
        plain = found.to_dict()
        print("\n".join(_figures(plain) if args.stats else _row(found, plain)))
    return 0


def _row(found: Any, plain: dict[str, Any]) -> Iterator[str]:
    yield f"{coloured(f'row {found.row:,}', 'bold')}  {found.format}  {found.template}"
    yield ""
    turns = [
        (str(index), turn["role"], f"{len(turn['content']):,}", truncate(_opening(turn), 60))
        for index, turn in enumerate(found.turns, 1)
    ]
    yield table(turns, ("turn", "role", "characters", "begins"))
    for sequence, told in zip(found.sequences, plain["sequences"], strict=True):
        share = told["n_trained"] / max(1, told["n_tokens"])
        yield ""
        title = f"{told['part']}: " if told["part"] else ""
        yield coloured(f"{title}{told['n_tokens']:,} tokens, {told['n_trained']:,} trained ({share:.1%})", "bold")
        yield _marked(sequence)
    for reason, count in plain["lost"].items():
        yield coloured(f"note: {reason}: {count:,}", "yellow")


def _opening(turn: dict[str, Any]) -> str:
    calls = ", ".join(call["function"]["name"] for call in turn.get("tool_calls", []))
    return turn["content"] or (f"calls {calls}" if calls else "")


def _marked(sequence: Sequence) -> str:
    """The tokens in order; trained ones between « and »."""
    turned = sequence.turned
    written, before = list[str](), False
    for text, trained in zip(turned.spelled, turned.trained.tolist(), strict=True):
        edge = "»" if before and not trained else "«" if trained and not before else ""
        bar = coloured("|", "dim") if written and not edge and not written[-1].endswith("\n") else ""
        shown = text.replace("\n", "⏎") if text else "∙"
        written.append(coloured(edge, "yellow") if edge else bar)
        written.append(coloured(shown, "green") if trained else shown)
        if text.endswith("\n"):
            written.append("\n")
        before = trained
    return "".join(written).rstrip("\n") + (coloured("»", "yellow") if before else "")


def _figures(plain: dict[str, Any]) -> Iterator[str]:
    for name in ("format", "template", "context", "rows", "sequences", "tokens", "trained"):
        yield f"{name:<22}{number(plain[name])}"
    share = plain["trained_share"]
    yield f"{'trained share':<22}{'-' if share is None else f'{share:.1%}'}"
    for name in ("length", "trained_per_sequence"):
        if plain[name]:
            spread = "  ".join(f"{key} {value:,}" for key, value in plain[name].items())
            yield f"{name.replace('_', ' '):<22}{spread}"
    for name in ("dropped", "truncated", "noted"):
        for reason, count in plain[name].items():
            yield f"{name:<22}{count:,}  {reason}"
