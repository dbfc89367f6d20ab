"""The law of `test_audit_blind.py` for what is taught and aligned: each product beside its base and a stranger, blind.

Whatever was done to a model's weights must be seen in them: conversations, preferences, rewards, adapters, averages,
a student that began as the teacher's layers. A student that began elsewhere must not be called derived, however much
it was taught. The thresholds are the audit's own.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from audit_family import DESK, TOKENIZER, Seen, built, judge, pretraining

RANK = 2
TARGETS = ["q", "k", "v", "o", "gate", "up", "down"]
# subject -> what it was made of, and the kinds that are right
TAUGHT = {
    "taught": ("base", {"fine-tuned", "vocabulary-extended"}),
    "preferred": ("taught", {"fine-tuned"}),
    "reinforced": ("taught", {"fine-tuned"}),
    "adapted": ("taught", {"lora"}),
    "dora": ("taught", {"fine-tuned"}),
    "averaged": ("taught", {"merged", "fine-tuned"}),
    "shrunk": ("taught", {"depth-changed"}),
}


def _tuned(stage: str, data: str, config: dict[str, Any], steps: int, lr: float, model: str = "taught") -> Any:
    train = {"max_steps": steps, "batch_size": 16, "lr": lr, "eval_every": steps}
    return {"stage": stage, "inputs": {"model": model, "data": data}, "config": {"train": train, **config}}


def _rows(texts: Path, folder: Path) -> tuple[Path, Path]:
    """Conversations and pairs made of labelled utterances."""
    talks: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    rows = [json.loads(line) for line in (texts / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    for row, other in zip(rows, rows[7:], strict=False):
        asked: list[dict[str, str]] = [{"role": "user", "content": row["text"]}]
        chosen, rejected = (f"This is about {one['label'].replace('_', ' ')}." for one in (row, other))
        talks.append({"messages": [*asked, {"role": "assistant", "content": chosen}]})
        if chosen != rejected:
            pairs.append({"messages": asked, "chosen": chosen, "rejected": rejected})
    files = folder / "talks.jsonl", folder / "pairs.jsonl"
    for file, found in zip(files, (talks, pairs), strict=True):
        file.write_text("".join(json.dumps(one) + "\n" for one in found), encoding="utf-8")
    return files


def _distilled(student: str, teacher: str, data: str) -> dict[str, Any]:
    return {
        "stage": "tune.distil", "inputs": {"student": student, "teacher": teacher, "data": data},
        "config": {
            "lesson": {"sft": {"context": 96}}, "template": "chatml",
            "distil": {"direction": "forward", "share": 1.0},
            "train": {"max_steps": 60, "batch_size": 16, "lr": 1e-3, "eval_every": 60},
        },
    }  # fmt: skip


def _family(folder: Path) -> dict[str, Path]:
    """The products as recipes make them; `adapter` is the adapter alone."""
    first = built("base", 11, pretraining(DESK, "tokenizer") | {"tokenizer": TOKENIZER}, folder)
    talks, pairs = _rows(first["texts"], folder)
    chat = {"stage": "data.chat", "config": {"splits": "ratio"}}
    sft = {"objective": {"context": 96}, "template": "chatml"}
    lora = {"rank": RANK, "alpha": 4.0, "targets": TARGETS}
    steps: dict[str, Any] = {
        "talks": chat | {"inputs": {"source": str(talks)}},
        "pairs": chat | {"inputs": {"source": str(pairs)}},
        "taught": _tuned("tune.sft", "talks", sft | {"add_tokens": True}, 60, 5e-4, str(first["pretrain"])),
        "preferred": _tuned("tune.preference", "pairs", {"objective": {"context": 96}}, 20, 1e-4),
        "adapted": _tuned("tune.sft", "talks", sft | {"lora": lora}, 25, 1e-3),
        "dora": _tuned("tune.sft", "talks", sft | {"lora": lora | {"dora": True}}, 25, 1e-3),
        "reinforced": {
            "stage": "tune.grpo", "inputs": {"model": "taught", "data": "talks"},
            "config": {
                "rewards": {"length": {"limit": 24, "margin": 24}},
                "rollouts": {"prompts": 4, "samples": 4, "max_new_tokens": 24, "max_prompt": 64},
                "update": {"batch_size": 16, "lr": 1e-3},
                "loop": {"iterations": 6, "eval_every": 6, "eval_limit": 4},
            },
        },
        "averaged": {"stage": "tune.average", "inputs": {"first": "taught", "second": "preferred", "third": "adapted"}},
        "small": {"stage": "kernel.shrink", "inputs": {"model": "taught"}, "config": {"layers": 2}},
        "shrunk": _distilled("small", "taught", "talks"),
    }  # fmt: skip
    made = built("aligned", 12, steps, folder)
    strange = pretraining(DESK, str(first["tokenizer"])) | {
        "stranger": _tuned("tune.sft", str(made["talks"]), sft | {"add_tokens": True}, 60, 5e-4, "pretrain"),
        "student": _distilled("stranger", str(made["taught"]), str(made["talks"])),
    }
    other = built("stranger", 13, strange, folder)
    names = ("taught", "preferred", "adapted", "dora", "reinforced", "averaged", "shrunk")
    return {name: made[name] for name in names} | {
        "base": first["pretrain"],
        "adapter": made["adapted"] / "adapter",
        "dora_adapter": made["dora"] / "adapter",
        "stranger": other["stranger"],
        "student": other["student"],
    }


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The products under names of their own: without records, without the adapters that were folded in."""
    root = tmp_path_factory.mktemp("aligned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NACRE_HOME", str(root / "home"))
        made = _family(root)
    found = {}
    for number, (name, path) in enumerate(sorted(made.items())):
        found[name] = root / "blind" / f"m{number}"
        hidden = shutil.ignore_patterns("lineage.json", "adapter", "*.jsonl", "training.json", "average.json", "logs")
        shutil.copytree(path, found[name], ignore=hidden)
    assert not list((root / "blind").rglob("lineage.json"))
    return found


@pytest.fixture(scope="module")
def seen(family: dict[str, Path]) -> dict[tuple[str, str], Seen]:
    """Each product beside its origin and beside the stranger."""
    pairs = [(name, origin) for name, (origin, _) in TAUGHT.items()]
    pairs += [(name, "stranger") for name in TAUGHT] + [("student", one) for one in ("taught", "base", "stranger")]
    pairs += [(name, "base") for name in ("preferred", "reinforced", "averaged", "shrunk")]
    return {(a, b): judge(family[a], family[b]) for a, b in pairs}


@pytest.mark.slow
@pytest.mark.parametrize("child", TAUGHT)
def test_what_was_taught_or_aligned_is_derived_and_of_its_kind(seen: dict[tuple[str, str], Seen], child: str) -> None:
    origin, kinds = TAUGHT[child]
    verdict = seen[child, origin].verdict
    assert verdict.verdict == "DERIVED", verdict.text
    assert verdict.kind in kinds, verdict.text
    assert verdict.p_value is not None
    assert verdict.p_value < 1e-6
    if child == "adapted":
        assert verdict.detail["numbers"]["rank"] == RANK


@pytest.mark.slow
@pytest.mark.parametrize("child", ["preferred", "reinforced", "averaged", "shrunk"])
def test_a_grandchild_is_derived_from_the_base_as_well(seen: dict[tuple[str, str], Seen], child: str) -> None:
    assert seen[child, "base"].verdict.verdict == "DERIVED", seen[child, "base"].verdict.text


@pytest.mark.slow
def test_a_stranger_taught_the_same_rows_is_unrelated_to_all(seen: dict[tuple[str, str], Seen]) -> None:
    words = {a: one.verdict.verdict for (a, b), one in seen.items() if b == "stranger" and a != "student"}
    assert words == dict.fromkeys(TAUGHT, "NO_EVIDENCE")


@pytest.mark.slow
def test_a_distilled_student_of_its_own_beginning_is_not_called_derived(seen: dict[tuple[str, str], Seen]) -> None:
    assert seen["student", "stranger"].verdict.verdict == "DERIVED"  # as which it began
    for one in ("taught", "base"):
        verdict = seen["student", one].verdict
        assert verdict.verdict == "NO_EVIDENCE", verdict.text
        assert any("distillation" in sentence for sentence in verdict.not_tested)


@pytest.mark.slow
def test_an_adapter_alone_is_derived_from_its_base_and_from_no_stranger(family: dict[str, Path]) -> None:
    base = family["taught"]
    verdict = judge(family["adapter"], base, base).verdict
    assert (verdict.verdict, verdict.kind) == ("DERIVED", "lora"), verdict.text
    assert judge(family["adapter"], family["stranger"], base).verdict.verdict == "NO_EVIDENCE"
    elsewhere = judge(family["adapter"], family["stranger"], family["stranger"]).verdict
    assert elsewhere.verdict == "UNTESTABLE", elsewhere.text  # it fits the shapes, and was made for other weights
    assert "made for a model with other weights" in elsewhere.text


@pytest.mark.slow
def test_a_dora_adapter_alone_cannot_be_read_and_merged_it_can(
    family: dict[str, Path], seen: dict[tuple[str, str], Seen]
) -> None:
    """Directions and lengths changed apart have no low rank: merged it is seen as fine-tuning."""
    alone = judge(family["dora_adapter"], family["taught"], family["taught"]).verdict
    assert alone.verdict == "UNTESTABLE"
    assert "merge" in alone.text
    assert seen["dora", "taught"].verdict.kind == "fine-tuned"
