"""The law that ties building and auditing together: what Nacre built it can trace, and it must re-infer it blind.

A family is built by recipes, its records are taken away, and the audit of the weights must recover the tree, the
kinds, and the stranger that shares a recipe and nothing else. A student of the outputs cannot be seen in weights:
NO_EVIDENCE is the right answer there, and the audit says what it could not see.
"""

from __future__ import annotations

import json
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from audit_family import DESK, TOKENIZER, Seen, built, judge, pretraining

from nacre.data.tokenizer import Tokenizer
from nacre.kernel import hf
from nacre.kernel.generate import GenerationConfig, generate
from nacre.lifecycle.audit.attacks import merging, pruning, rounding
from nacre.lifecycle.audit.attacks.files import Stored, rename
from nacre.lifecycle.audit.attacks.model import Model

STRANGE = ("stranger", "student")
PARENT = {
    "tuned": "base", "sibling": "base", "adapted": "base", "pruned": "base", "quantized": "tuned", "merged": "tuned",
}  # fmt: skip
KIND = {
    "tuned": ("fine-tuned",), "sibling": ("fine-tuned",), "adapted": ("lora",), "pruned": ("pruned",),
    "quantized": ("quantized",), "merged": ("merged", "fine-tuned"),
}  # fmt: skip
RANK = 2


def _tuning(lr: float, **more: Any) -> dict[str, Any]:
    return {
        "stage": "tune.causal", "inputs": {"model": "pretrain", "data": "articles"},
        "config": {
            "objective": {"context": 64, "packing": "stream"},
            "train": {"max_steps": 25, "batch_size": 16, "lr": lr, "eval_every": 25}, **more,
        },
    }  # fmt: skip


_KB = {
    "stage": "data.prepare", "inputs": {"source": "data:desk/kb"},
    "config": {"task": "text", "split": {"ratios": {"train": 0.95, "valid": 0.05}}},
}  # fmt: skip


def _built(folder: Path) -> dict[str, Path]:
    """The family as recipes make it."""
    steps = pretraining(DESK, "tokenizer") | {"tokenizer": TOKENIZER}
    steps |= {"articles": _KB, "tuned": _tuning(5e-4), "sibling": {**_tuning(5e-4), "inputs": {}}}
    steps["sibling"]["inputs"] = {"model": "pretrain", "data": "texts"}
    lora = {"rank": RANK, "alpha": 4.0, "targets": ["q", "k", "v", "o", "gate", "up", "down"]}
    steps["adapted"] = _tuning(1e-3, lora=lora)
    made = built("family", 11, steps, folder)
    stranger = built("stranger", 12, pretraining(DESK, str(made["tokenizer"])), folder)
    written = _written(made["pretrain"], folder / "written.jsonl")
    outputs = {"stage": "data.prepare", "inputs": {"source": str(written)}, "config": {"task": "text"}}
    student = built("student", 13, pretraining(outputs, str(made["tokenizer"])), folder)
    family = {name: made[name] for name in ("tuned", "sibling", "adapted")}
    return {**family, "base": made["pretrain"], "stranger": stranger["pretrain"], "student": student["pretrain"]}


def _written(teacher: Path, path: Path) -> Path:
    """Texts that the teacher writes: all that its student ever sees of it."""
    words = Tokenizer.load(teacher)
    assert words.bos_id is not None
    done = generate(hf.load(teacher), [[words.bos_id]] * 200, GenerationConfig(max_new_tokens=48, seed=3))
    rows = [json.dumps({"text": text}) for one in done if (text := words.decode(one.ids)).strip()]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders under names of their own, without any record: the built ones, and what was made of them."""
    root = tmp_path_factory.mktemp("family")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NACRE_HOME", str(root / "home"))
        made = _built(root)
    models = {name: Model.of(hf.load(path)) for name, path in made.items()}
    models["quantized"] = rounding.round_groups(models["tuned"], 4)
    models["pruned"] = pruning.prune_magnitude(models["base"], 0.5)
    models["merged"] = merging.merge_linear(models["tuned"], models["sibling"], 0.7)
    found = {}
    for number, (name, model) in enumerate(sorted(models.items())):
        stored = Stored.of(model)
        folder = (rename(stored, number) if name == "adapted" else stored).write(root / "blind" / f"m{number}")
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(made["base"] / file, folder / file)
        found[name] = folder
    assert not list((root / "blind").rglob("lineage.json"))
    return found


@pytest.fixture(scope="module")
def seen(family: dict[str, Path]) -> dict[tuple[str, str], Seen]:
    """Every pair once: the child first where one descends from the other, as `PARENT` has it."""
    pairs = [(b, a) if PARENT.get(b) == a else (a, b) for a, b in combinations(sorted(family), 2)]
    return {(a, b): judge(family[a], family[b]) for a, b in pairs}


@pytest.mark.slow
def test_the_tree_is_recovered_blind(seen: dict[tuple[str, str], Seen]) -> None:
    """The shortest tree over all derived pairs has the edges of the true one, in which no direction is claimed.

    A merge has two parents and no place in a tree: it lies nearest the one that makes up more of it.
    """
    edges: set[frozenset[str]] = set()
    joined: dict[str, set[str]] = {}
    derived = [pair for pair, one in seen.items() if one.verdict.verdict == "DERIVED" and "merged" not in pair]
    for a, b in sorted(derived, key=lambda pair: seen[pair].distance):
        groups = [joined.setdefault(name, {name}) for name in (a, b)]
        if groups[0] is not groups[1]:
            edges.add(frozenset((a, b)))
            for name in groups[0] | groups[1]:
                joined[name] = groups[0] | groups[1]
            whole = joined[a]
            joined |= dict.fromkeys(whole, whole)
    assert edges == {frozenset(pair) for pair in PARENT.items() if "merged" not in pair}
    near = {pair: one.distance for pair, one in seen.items() if "merged" in pair}
    assert set(min(near, key=lambda pair: near[pair])) == {"merged", "tuned"}


@pytest.mark.slow
@pytest.mark.parametrize("child", PARENT)
def test_the_kind_is_recovered_blind(seen: dict[tuple[str, str], Seen], child: str) -> None:
    verdict = seen[child, PARENT[child]].verdict
    assert verdict.verdict == "DERIVED", verdict.text
    assert verdict.kind in KIND[child], verdict.text
    assert verdict.p_value is not None
    assert verdict.p_value < 1e-6
    assert verdict.tier in ("exact", "calibrated")
    if child == "adapted":
        assert verdict.detail["numbers"]["rank"] == RANK


@pytest.mark.slow
def test_the_stranger_of_the_same_recipe_is_unrelated_to_all(seen: dict[tuple[str, str], Seen]) -> None:
    words = {pair: one.verdict.verdict for pair, one in seen.items() if "stranger" in pair}
    assert len(words) == len(PARENT) + len(STRANGE)
    assert set(words.values()) == {"NO_EVIDENCE"}, words


@pytest.mark.slow
def test_a_student_of_the_outputs_is_no_evidence_and_the_audit_says_what_it_cannot_see(
    seen: dict[tuple[str, str], Seen],
) -> None:
    """It does derive from the base, by its outputs: no test of weights can tell, and none may claim to."""
    found = [one.verdict for pair, one in seen.items() if "student" in pair]
    assert {one.verdict for one in found} == {"NO_EVIDENCE"}
    assert all(any("distillation" in sentence for sentence in one.not_tested) for one in found)
