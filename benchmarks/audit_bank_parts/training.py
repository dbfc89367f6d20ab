"""How a model of the bank is trained, or made of another one by training. One folder per model, atomically."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from audit_bank_parts import texts
from audit_bank_parts.plan import Recipe, Spec
from nacre.data.tokenizer import Tokenizer
from nacre.data.tokenizer import train as train_tokenizer
from nacre.data.tokenizer_config import TokenizerConfig
from nacre.kernel import hf
from nacre.kernel.adapters import adapted
from nacre.kernel.adapters.config import LoraConfig
from nacre.kernel.generate import GenerationConfig, generate
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.lifecycle.audit.attacks.catalogue import ATTACKS
from nacre.lifecycle.audit.attacks.model import Model
from nacre.lineage.durable import write_atomic
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.config import CausalConfig

CONTEXT, BATCH = 64, 16
ABOUT = "bank.json"  # beside a model: what it is and what it cost; its presence means complete


def tokenizer(recipe: Recipe, bank: Path) -> Tokenizer:
    """The recipe's tokenizer, trained on its half of the corpus once per bank."""
    folder = bank / "tokenizers" / recipe.name
    if not (folder / "tokenizer.json").is_file():
        part = folder.with_name(f".{folder.name}.{os.getpid()}")
        config = TokenizerConfig(vocab_size=recipe.vocabulary, style="llama")
        train_tokenizer(texts.half(recipe.corpus, recipe.half), config, part)
        _publish(part, folder)
    return Tokenizer.load(folder)


def build(spec: Spec, bank: Path) -> bool:
    """Trains the model unless it is there; whether it did. Raises what training raises."""
    folder = bank / "models" / spec.name
    if _is_built(folder, spec):
        return False
    began = time.perf_counter()
    words = tokenizer(spec.recipe, bank)
    kernel, rows = _begin(spec, words, bank), _rows(spec, words, bank)
    scratch = bank / "scratch" / spec.name
    loss = _fit(kernel, rows, spec, words, scratch)
    part = folder.with_name(f".{spec.name}.{os.getpid()}")
    hf.save(kernel, part)
    words.save(part)
    about = {
        "spec": _plain(spec),
        "loss": loss,
        "parameters": sum(one.numel() for one in kernel.parameters()),
        "seconds": round(time.perf_counter() - began, 2),
        "torch": torch.__version__,
    }
    write_atomic(part / ABOUT, (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode())
    _publish(part, folder)
    shutil.rmtree(scratch, ignore_errors=True)
    return True


def _is_built(folder: Path, spec: Spec) -> bool:
    """Whether the folder holds this model: one of another plan is made again."""
    if not (folder / ABOUT).is_file():
        return False
    made: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["spec"]
    return made == json.loads(json.dumps(_plain(spec)))


def _publish(part: Path, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, folder)


def _plain(spec: Spec) -> dict[str, Any]:
    return {**vars(spec), "recipe": vars(spec.recipe), "size": vars(spec.size)}


def _begin(spec: Spec, words: Tokenizer, bank: Path) -> Kernel:
    """A fresh kernel, or the parent's with what happened to it before training."""
    if spec.parent is None or spec.train == "outputs":
        ids = {"vocab_size": len(words), "pad_id": words.pad_id, "bos_id": words.bos_id, "eos_id": words.eos_id}
        config = preset("llama2", max_positions=2 * CONTEXT, **spec.size.choices(), **ids)
        return Kernel(config, torch.Generator().manual_seed(spec.init_seed))
    model = Model.of(hf.load(bank / "models" / spec.parent))
    for name in spec.begun_with:
        model = ATTACKS[name].apply(model, spec.order_seed)
    kernel = model.kernel()
    if spec.train == "lora":
        config = LoraConfig(rank=spec.rank, alpha=2.0 * spec.rank, targets=("q", "k", "v", "o", "gate", "up", "down"))
        adapted.attach(kernel, config, torch.Generator().manual_seed(spec.order_seed))
    return kernel


def _rows(spec: Spec, words: Tokenizer, bank: Path) -> list[dict[str, str]]:
    if spec.train == "outputs":
        return _written(bank / "models" / str(spec.parent), words, spec.order_seed)
    half = spec.recipe.half if spec.half is None else spec.half
    return [{"text": text} for text in texts.half(spec.recipe.corpus, half)]


def _written(teacher: Path, words: Tokenizer, seed: int) -> list[dict[str, str]]:
    """Texts that a model writes when it is given the beginning of a text and nothing else."""
    assert words.bos_id is not None
    config = GenerationConfig(max_new_tokens=CONTEXT, seed=seed)
    done = generate(hf.load(teacher), [[words.bos_id]] * 400, config)
    found = [words.decode(one.ids) for one in done]
    return [{"text": text} for text in found if text.strip()]


def _fit(kernel: Kernel, rows: list[dict[str, str]], spec: Spec, words: Tokenizer, scratch: Path) -> float:
    objective = Causal(words, CausalConfig(context=CONTEXT, packing="stream", count_bytes=False))
    examples = objective.arrange([one for one in map(objective.encode, rows) if one is not None])
    recipe, steps = spec.recipe, max(1, round(spec.budget * spec.steps))
    tuned = spec.parent is not None and spec.train != "outputs"
    config = TrainConfig(
        max_steps=steps,
        batch_size=BATCH,
        optimizer="adamw" if tuned else recipe.optimizer,
        lr={"lora": 2e-3}.get(spec.train, 1e-3) if tuned else recipe.lr,
        schedule=recipe.schedule,
        freeze=_frozen(kernel, spec),
        seed=spec.order_seed,
        eval_every=steps,
    )
    result = train(kernel, objective, examples, config, folder=scratch)
    if spec.train == "lora":
        adapted.fold(kernel)
    return float([row["loss"] for row in result.history if "loss" in row][-1])


def _frozen(kernel: Kernel, spec: Spec) -> tuple[str, ...]:
    left = {"embedding": ("embed.", "lm_head."), "head": ("lm_head.",)}.get(spec.train)
    if left is None:
        return ()
    return tuple(name for name, _ in kernel.named_parameters() if not name.startswith(left))
