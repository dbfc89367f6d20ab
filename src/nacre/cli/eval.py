"""`nacre eval MODEL --data REF`: measure a model on labelled data."""

from __future__ import annotations

import json
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nacre.cli.parser import add_json_option, add_store_option
from nacre.cli.terminal import coloured, number, table
from nacre.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from nacre.kernel.config import KernelConfig
    from nacre.recipe.stage import Stage

HELP = """
Measures a model artifact or a Hugging Face folder on a data file or data set, by the model's head: a classifier's
accuracy, a tagger's entity F1, a decoder's bits per byte, a translator's BLEU, each with a confidence interval. Writes
metrics.json, predictions.jsonl and report.html, which opens offline.

examples:
  nacre eval intents/tune --data data:banking77 --out reports/banking77
  nacre eval ./my-checkpoint --data test.jsonl --language zh
  nacre eval reviews/tune --data reviews/split --split valid --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ref", metavar="MODEL", help="name, name@version, a folder, or model:NAME")
    parser.add_argument("--data", metavar="REF", required=True, help="a data file, a data set's folder or its name")
    parser.add_argument("--split", default="test", help="which part of a data set (default: test)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where the report goes (default: nacre-eval)")
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="of the report (default: en)")
    parser.add_argument("--target-language", default="en", help="of a translator's output: zh cuts by characters")
    parser.add_argument("--context", type=int, help="tokens of a text that are read (default: as trained)")
    parser.add_argument("--limit", type=int, help="measure the first rows only")
    parser.add_argument("--batch", type=int, default=32, help="rows at a time (default: 32)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default: 0)")
    add_store_option(parser)
    add_json_option(parser)


def run(args: Namespace) -> int:
    from nacre.kernel.hf import load_config
    from nacre.progress import Silent, Terminal
    from nacre.recipe.machine import resolve_device
    from nacre.recipe.references import open_store
    from nacre.recipe.stage import Work

    if args.seed < 0:
        raise UsageError(f"--seed {args.seed}: below 0", remedy="give 0 or more")
    out = _out(args.out or Path("nacre-eval"))
    store = open_store(args.store)
    model, data = store.resolve(args.ref), store.resolve(args.data)
    store.verify(model)
    stage, config = _chosen(args, load_config(model.path))
    inputs = {"model": model.path, "data": data.path}
    if stage.check:
        stage.check(config, inputs)
    progress = Terminal("eval") if sys.stderr.isatty() else Silent()
    with _made(out), tempfile.TemporaryDirectory() as scratch:
        work = Work(inputs, out, Path(scratch), args.seed, progress, resolve_device(args.device))
        metrics = stage(config, work)
    if args.json:
        plain = {"model": model.ref, "data": data.ref, "split": args.split, "report": str(out / "report.html")}
        print(json.dumps(plain | {"stage": stage.name, "metrics": dict(metrics)}, ensure_ascii=False, indent=2))
    else:
        print(_summary(metrics))
        print(f"report: {coloured(str(out / 'report.html'), 'bold')}")
    return 0


def _chosen(args: Namespace, kernel: KernelConfig) -> tuple[Stage, Any]:
    """The evaluation that fits the kernel's head, and its config."""
    from nacre.lifecycle.evaluate import stages

    common = {name: getattr(args, name) for name in ("split", "language", "context", "limit", "batch")}
    if kernel.head == "classify":
        return (
            (stages.images, stages.ImagesConfig(**common))
            if kernel.is_vision
            else (stages.classify, stages.EvaluateConfig(**common))
        )
    if kernel.head == "tag":
        return stages.tag, stages.EvaluateConfig(**common)
    if kernel.head == "lm" and kernel.layout == "decoder":
        return stages.language, stages.EvaluateConfig(**common)
    if kernel.head == "lm":
        return stages.translate, stages.TranslateConfig(**common, target_language=args.target_language)
    raise CheckpointError(
        f"{args.ref} has the head {kernel.head!r}, for which there is nothing to measure",
        remedy="tune it on a task first (tune.classify, tune.tag ...), then evaluate the result",
    )


def _out(folder: Path) -> Path:
    """The folder for the report: new, empty, or an earlier report's."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file", remedy="give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "metrics.json").is_file():
        raise UsageError(f"--out {folder} holds other files", remedy="give a new folder, or that of an earlier report")
    return folder


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder, made; it goes again when nothing came to be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {folder} cannot be made: {error.strerror}", remedy="give another folder") from error
    try:
        yield
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()


def _summary(metrics: Mapping[str, Any]) -> str:
    """One line per figure, its interval beside it."""
    rows = [
        [name, number(value), _interval(metrics, name)]
        for name, value in metrics.items()
        if not name.endswith(("_low", "_high"))
    ]
    return table(rows, ("figure", "value", "95 % interval"))


def _interval(metrics: Mapping[str, Any], name: str) -> str:
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return "" if low is None or high is None else f"{number(low)} .. {number(high)}"
