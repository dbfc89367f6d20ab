"""What a pair compares: a model of the bank after attacks, written where the audit can open it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from audit_bank_parts import texts
from audit_bank_parts.plan import Pair
from audit_bank_parts.training import ABOUT, CONTEXT
from nacre.data.tokenizer import Tokenizer
from nacre.errors import ConfigError
from nacre.kernel import hf
from nacre.lifecycle.audit.attacks import files, merging, shapes
from nacre.lifecycle.audit.attacks.capability import Capability, loss
from nacre.lifecycle.audit.attacks.catalogue import ATTACKS
from nacre.lifecycle.audit.attacks.files import Stored
from nacre.lifecycle.audit.attacks.model import Model

_MERGE = re.compile(r"merge-(linear|slerp|ties|dare)-([\d.]+)")
_FILES: dict[str, Callable[[Stored, int], Stored]] = {
    "rename": files.rename,
    "reshard": lambda stored, seed: stored,
    "transpose": lambda stored, seed: files.transpose(stored),
    "pack": lambda stored, seed: files.pack(stored),
    "split": lambda stored, seed: files.split(stored),
    "extra-tensors": lambda stored, seed: files.add_tensors(stored, 4, seed),
    "decoy": lambda stored, seed: files.graft_decoy(stored, _decoy(stored, seed)),
    "edit-config": lambda stored, seed: files.edit_config(stored, model_type="own", architectures=None),
    "bf16": lambda stored, seed: files.cast(stored, torch.bfloat16),
}


def subject(pair: Pair, bank: Path, folder: Path, seed: int) -> Model:
    """Writes the pair's subject into `folder`; the model as our kernel has it, before attacks on its file."""
    source = bank / "models" / pair.source
    model, stored = load(source), None
    for number, step in enumerate(pair.steps):
        if step in _FILES:
            stored = _FILES[step](stored or Stored.of(model), seed + number)
        elif step == "upcycle":
            stored = shapes.upcycle(model, 4, seed, noise=0.02)
        elif stored is not None:
            raise ConfigError(f"{step} after an attack on the file", remedy="attacks on models come first")
        else:
            model = _attacked(model, step, pair, bank, seed + number)
    shards = 3 if "reshard" in pair.steps else 1
    (stored or Stored.of(model)).write(folder, shards)
    for kept in source.iterdir():
        if "token" in kept.name and kept.name != ABOUT:
            shutil.copy(kept, folder / kept.name)
    return model


def load(folder: Path) -> Model:
    """A model of the bank."""
    return Model.of(hf.load(folder))


def _attacked(model: Model, step: str, pair: Pair, bank: Path, seed: int) -> Model:
    merge = _MERGE.fullmatch(step)
    if merge is None:
        return ATTACKS[step].apply(model, seed)
    way, share = merge.group(1), float(merge.group(2))
    assert pair.other is not None
    other = load(bank / "models" / pair.other)
    if way == "linear":
        return merging.merge_linear(model, other, share)
    if way == "slerp":
        return merging.merge_slerp(model, other, share)
    base = load(bank / "models" / pair.other.rpartition("+")[0])
    if way == "ties":
        return merging.merge_ties(base, [model, other], share)
    return merging.merge_dare(base, [model, other], [share, 1 - share], 0.5, seed)


def _decoy(stored: Stored, seed: int) -> torch.Tensor:
    """An embedding of another model's spread. Drawn, not trained: a stand-in where no third model is at hand."""
    real = next(one for name, one in stored.tensors.items() if name.endswith("embed_tokens.weight"))
    return torch.randn(real.shape, generator=torch.Generator().manual_seed(seed)) * real.std()


def capability(pair: Pair, model: Model, bank: Path) -> Capability | None:
    """Loss before the attacks and after, on texts that no model saw; None where there was no attack."""
    if not pair.steps:
        return None
    corpus = json.loads((bank / "models" / pair.source / ABOUT).read_text(encoding="utf-8"))["spec"]["recipe"]["corpus"]
    words = Tokenizer.load(bank / "models" / pair.source)
    ids = [one for text in texts.held_out(corpus) for one in words.encode(text)]
    count = min(64, (len(ids) - 1) // CONTEXT)
    blocks = torch.tensor([ids[start * CONTEXT : (start + 1) * CONTEXT + 1] for start in range(count)])
    return Capability(loss(load(bank / "models" / pair.source), blocks), loss(model, blocks))
