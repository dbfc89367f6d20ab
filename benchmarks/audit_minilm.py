"""Whether the audit is right about real weights: MiniLM beside what is made of it, and beside a BERT of its shape.

python benchmarks/audit_minilm.py --work DIR [--only 'CASE;CASE'] [--steps 60] [--no-record]

What is trained is kept in DIR (a store), so that a second run only audits: MiniLM fine-tuned by the repository's recipe
and the same with LoRA, both for `--steps` steps, and a BERT of the same shape and tokenizer pretrained from scratch
on the same texts. MiniLM is found where `nacre data get model:minilm` keeps it.

MiniLM normalises after each residual sum: its stream is the output of a LayerNorm with gains of its own, so that no
rotation keeps the function, nor do signs of single channels. A permutation of the channels does, one sign for the whole
stream, permuted neurons and heads, and mixed values: these stand in for "rotated with folded norms". `drift` is the
largest change of a cosine between embeddings of a few sentences (0: the function is kept).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

import record
from nacre.data import models
from nacre.data.tokenizer import Tokenizer
from nacre.kernel import hf
from nacre.kernel.heads import pool
from nacre.lifecycle.audit import calibration
from nacre.lifecycle.audit.attacks import bases, files, merging, pruning, rounding, tampering
from nacre.lifecycle.audit.attacks.files import Stored
from nacre.lifecycle.audit.attacks.model import Model, hidden_axis
from nacre.lifecycle.audit.audit import AuditOptions, audit
from nacre.lifecycle.audit.verdict import Pair
from nacre.recipe.recipe import Recipe, load, parse
from nacre.recipe.references import open_store
from nacre.recipe.run import RunOptions, run

RECIPE = Path(__file__).parents[1] / "recipes" / "minilm.yaml"
TEXTS = ("I lost my card", "Where is my money?", "The transfer has not arrived yet", "How do I change my PIN?")
SHAPE = {"hidden_size": 384, "layers": 6, "heads": 12, "ffn_size": 1536, "max_positions": 512}
BATCH = 8  # texts in each step of a training
LORA = {"rank": 8, "alpha": 16.0, "targets": ["attention.*", "ffn.*"]}


@dataclass(frozen=True)
class Case:
    """A subject made of the `sources` (`minilm`, `tuned`, `adapted`, `own`) by `make`, and what is right beside
    MiniLM. `against`: the references."""

    name: str
    note: str
    sources: tuple[str, ...]
    make: Callable[[Sequence[Model]], Model | Stored]
    verdicts: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    against: tuple[str, ...] = ("minilm",)


def flip(model: Model) -> Model:
    """The stream of a post-norm encoder with its sign turned. Keeps the function: LayerNorm is odd but for its bias."""
    changed = {}
    for name, values in model.state.items():
        is_gain = name.endswith("norm.weight")
        is_inner = hidden_axis(name) is None or name.endswith("pooler.bias")
        changed[name] = values if is_gain or is_inner else -values
    return model.with_state(changed)


def turned(model: Model) -> Model:
    """All that keeps the function of a post-norm encoder: channels, sign, neurons, heads, values."""
    model = flip(bases.permute_hidden(model, 1))
    return bases.mix_values(bases.permute_heads(bases.permute_neurons(model, 2), 3), 4)


_SAME, _DERIVED, _NONE = ("IDENTICAL", "DERIVED"), ("DERIVED",), ("NO_EVIDENCE",)
_POST = "post-norm LayerNorm: no rotation keeps the function"
CASES = (
    Case("itself", "other bytes, the same tensors", ("minilm",), lambda m: m[0], ("IDENTICAL",)),
    Case("renamed", "every name, no family in the config", ("minilm",), lambda m: files.rename(Stored.of(m[0]), 1),
         _SAME, ("renamed",)),
    Case("permuted", "hidden channels", ("minilm",), lambda m: bases.permute_hidden(m[0], 1), _DERIVED, ("renamed",)),
    Case("permuted neurons", "neurons and heads", ("minilm",),
         lambda m: bases.permute_heads(bases.permute_neurons(m[0], 1), 2), _DERIVED, ("renamed",)),
    Case("turned", f"{_POST}; channels, sign, neurons, heads, values in its place", ("minilm",),
         lambda m: turned(m[0]), _DERIVED, ("renamed",)),
    Case("int8", "groups of 32", ("minilm",), lambda m: rounding.round_groups(m[0], 8), _DERIVED, ("quantized",)),
    Case("pruned 50 %", "by magnitude", ("minilm",), lambda m: pruning.prune_magnitude(m[0], 0.5), _DERIVED,
         ("pruned",)),
    Case("LoRA, drawn", "rank 8 at random, 5 % of each matrix", ("minilm",),
         lambda m: tampering.add_low_rank(m[0], 8, 0.05, 1), _DERIVED, ("lora",)),
    Case("LoRA, merged", "rank 8", ("adapted",), lambda m: m[0], _DERIVED, ("lora",)),
    Case("fine-tuned", "recipes/minilm.yaml, full", ("tuned",), lambda m: m[0], _DERIVED, ("fine-tuned",)),
    Case("fine-tuned, turned", "all that keeps the function", ("tuned",), lambda m: turned(m[0]), _DERIVED,
         ("fine-tuned",)),
    Case("merged 0.3", "0.3 of the tuned one, the rest of the LoRA one", ("tuned", "adapted"),
         lambda m: merging.merge_linear(m[0], m[1], 0.3), _DERIVED, ("merged",), ("tuned", "adapted", "minilm")),
    Case("own BERT", "the same shape and tokenizer, from scratch", ("own",), lambda m: m[0], _NONE),
)  # fmt: skip


def recipe(steps: int, tokenizer: Path, wanted: AbstractSet[str]) -> Recipe:
    """What is trained of the `wanted`: steps of the repository's recipe, cut short, and a BERT from scratch."""
    known = load(RECIPE)
    full = known.steps["full"]
    train = {**full.config["train"], "max_steps": steps, "eval_every": steps, "batch_size": BATCH}
    tuned = {**full.config, "train": train}
    adapted = {**full.config, "lora": LORA, "train": {**train, "lr": 1e-3}}
    adapted["train"].pop("layer_decay", None)
    pretraining = {"max_steps": steps, "eval_every": steps, "batch_size": BATCH, "lr": 5e-4}
    values: dict[str, Any] = {
        "utterances": _step(known, "utterances"),
        "tuned": {"stage": full.stage, "inputs": dict(full.inputs), "config": tuned},
        "adapted": {"stage": full.stage, "inputs": dict(full.inputs), "config": adapted},
        "begin": {"stage": "kernel.initialise", "inputs": {"tokenizer": str(tokenizer)},
                  "config": {"preset": "bert", "choices": SHAPE}},
        "own": {"stage": "pretrain.mlm", "inputs": {"model": "begin", "data": "utterances"},
                "config": {"objective": {"context": 64}, "train": pretraining}},
    }  # fmt: skip
    kept = {"utterances", *wanted, *(("begin",) if "own" in wanted else ())}
    steps_of = {name: one for name, one in values.items() if name in kept}
    return parse({"name": "minilm-audit", "seed": known.seed, "about": known.about, "steps": steps_of},
                 RECIPE.parent, "audit_minilm")  # fmt: skip


def _step(known: Recipe, name: str) -> dict[str, Any]:
    step = known.steps[name]
    return {"stage": step.stage, "inputs": dict(step.inputs), "config": dict(step.config)}


@torch.no_grad()
def cosines(model: Model, words: Tokenizer) -> torch.Tensor:
    """Cosines between the mean embeddings of a few sentences: no change of basis that keeps the function moves them."""
    kernel = model.kernel()
    rows = []
    for text in TEXTS:
        ids = torch.tensor([words.encode(text)])
        mask = torch.ones_like(ids, dtype=torch.bool)
        rows.append(pool(kernel(ids, mask=mask, token_types=torch.zeros_like(ids)).hidden, mask, "mean")[0])
    unit = torch.nn.functional.normalize(torch.stack(rows), dim=1)
    return unit @ unit.T


def written(case: Case, made: Mapping[str, Path], folder: Path) -> float | None:
    """Writes the case's subject with MiniLM's tokenizer; its drift from its first source, None where its file's names
    are no family's."""
    sources = [_body(Model.of(hf.load(made[name]))) for name in case.sources]
    subject = case.make(sources)
    (subject if isinstance(subject, Stored) else Stored.of(subject)).write(folder)
    for one in made["minilm"].iterdir():
        if "token" in one.name or one.name == "vocab.txt":
            shutil.copy(one, folder / one.name)
    if isinstance(subject, Stored):
        return None
    words = Tokenizer.load(made["minilm"])
    return float((cosines(subject, words) - cosines(sources[0], words)).abs().max())


def _body(model: Model) -> Model:
    """Without what a task put on top: classifiers and masked-word heads."""
    state = {name: one for name, one in model.state.items() if name.startswith(("embed.", "encoder.", "pooler."))}
    changed = model.config.replace(head="none", labels=(), pooler="pooler.weight" in state)
    return Model(changed, state)


def judged(case: Case, made: Mapping[str, Path], top: Path, options: AuditOptions) -> tuple[dict[str, Any], Pair]:
    """A row, and the pair that it tells of: the strongest, or one with a share where references make up a merge."""
    folder = top / "subject"
    drift = written(case, made, folder)
    references = []
    for name in case.against:
        references.append(made["minilm"] if name == "minilm" else top / name)
        if name != "minilm":
            again = Case(name, "", (name,), lambda m: m[0], ())
            written(again, made, top / name)
    began = time.perf_counter()
    pairs = audit(folder, references, options)
    seconds = time.perf_counter() - began
    told = next((one for one in pairs if one.stages["weights"].share is not None), pairs[0])
    weights = told.stages["weights"]
    right = told.verdict in case.verdicts and (told.verdict == "IDENTICAL" or weights.kind in (case.kinds or (None,)))
    row = {
        "case": case.name, "note": case.note, "drift": "" if drift is None else f"{drift:.1e}",
        "expected": " or ".join(case.verdicts) + (f" ({' or '.join(case.kinds)})" if case.kinds else ""),
        "verdict": told.verdict, "kind": weights.kind or "", "right": right,
        "p_value": "" if weights.p_value is None else f"{weights.p_value:.2g}", "tier": weights.tier or "",
        "seconds": round(seconds, 2), "told": str(weights.text)[:200],
    }  # fmt: skip
    return row, told


def details(pair: Pair) -> dict[str, Any]:
    """What rules stand on: the statistics, and medians of the delta over the stack and outside it."""
    weights = pair.stages["weights"]
    rows = weights.detail.get("delta", [])
    inside = [one for one in rows if one["layer"] is not None]
    numbers = [name for name in (inside[0] if inside else {}) if isinstance(inside[0][name], float | int)]
    return {
        "evidence": {one.test: [one.value, one.p_value, one.tier] for one in weights.evidence},
        "reason": weights.reason, "alignment": weights.detail.get("alignment"),
        "numbers": weights.detail.get("numbers"), "mixture": weights.detail.get("mixture"),
        "inside": {name: round(float(median(one[name] or 0 for one in inside)), 4) for name in numbers},
        "by_role": {role: {name: round(float(median(one[name] for one in inside if one["role"] == role)), 4)
                           for name in ("relative", "along", "kept", "kept_back", "bulk", "rank", "energy", "zeros_b")
                           if name in numbers}
                    for role in dict.fromkeys(one["role"] for one in inside)},
        "outside": [one for one in rows if one["layer"] is None],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where what is trained is kept")
    parser.add_argument("--only", default="", help="cases, with semicolons between them")
    parser.add_argument("--steps", type=int, default=60, help="of each training")
    parser.add_argument("--no-record", action="store_true", help="append no rows to results/audit_minilm.csv")
    parser.add_argument("--details", type=Path, help="write statistics and differences of every case to this JSON file")
    parser.add_argument("--calibration", type=Path, help="another table than the one shipped")
    given = parser.parse_args()
    table = calibration.load(given.calibration) if given.calibration else None
    options = AuditOptions(stages=("kernel", "tokenizer", "weights"), calibration=table)
    torch.set_num_threads(1)
    wanted = {name.strip() for name in given.only.split(";") if name.strip()}
    if unknown := wanted - {one.name for one in CASES}:
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(one.name for one in CASES)}")
    cases = [one for one in CASES if not wanted or one.name in wanted]
    minilm = models.find("minilm", fetch=False)
    where = record.machine(["nacre", "torch"])
    trained = {name for one in cases for name in (*one.sources, *one.against)} - {"minilm"}
    made_by = recipe(given.steps, minilm, trained)
    results = run(made_by, open_store(given.work), RunOptions(device="cpu")) if trained else []
    made = {"minilm": minilm, **{one.step: one.path for one in results}}
    for one in results:
        print(f"{one.step:12} {one.state:8} {one.record.cost.seconds if one.record.cost else 0:8.1f} s")
    rows, told = [], {}
    for case in cases:
        with tempfile.TemporaryDirectory() as top:
            row, pair = judged(case, made, Path(top), options)
        rows.append({**where, "steps": given.steps, "batch_size": BATCH, **row})
        told[case.name] = details(pair)
        mark = "right" if row["right"] else "WRONG"
        found = f"{row['verdict']:12} {row['kind']:12} p {row['p_value']:8} {row['seconds']:6.1f} s"
        print(f"{mark:6} {case.name:20} {found}  {row['told']}", flush=True)
    if given.details:
        given.details.write_text(json.dumps(told, indent=1, ensure_ascii=False, default=str), encoding="utf-8")
    if not given.no_record:
        record.append("audit_minilm", rows)


if __name__ == "__main__":
    main()
