"""Supervised fine-tuning beside TRL's trainer: the same loss and the same step in float64, whatever the layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from chat_kit import CHATS, template
from chat_kit import tokenizer as chat_tokenizer

from nacre.data.chat.template import ChatTemplate
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.train.objective import prepare
from nacre.train.objectives.config_align import SftConfig
from nacre.train.objectives.sft import Sft

RATE = 0.1
ROWS = [{"messages": CHATS[name]} for name in ("one", "chinese", "system", "many")]  # of unequal lengths


def written(folder: Path, chat: ChatTemplate) -> Kernel:
    sizes = {"hidden_size": 32, "heads": 4, "layers": 2, "max_positions": 256, "vocab_size": len(chat.tokenizer)}
    ids = {"bos_id": chat.tokenizer.bos_id, "eos_id": chat.tokenizer.eos_id, "pad_id": chat.tokenizer.pad_id}
    kernel = Kernel(preset("llama2", **sizes | ids, head="lm"), torch.Generator().manual_seed(0)).double()
    hf.save(kernel, folder)
    chat.tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text(chat.source)
    return kernel


def stepped_by_trl(folder: Path, place: Path, accumulation: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and weights after one step of plain descent with TRL's SFTTrainer on the whole data."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    arguments = trl.SFTConfig(
        output_dir=str(place), per_device_train_batch_size=len(ROWS) // accumulation,
        gradient_accumulation_steps=accumulation, max_steps=1, learning_rate=RATE, optim="sgd",
        lr_scheduler_type="constant", max_grad_norm=0.0, weight_decay=0.0, assistant_only_loss=True, bf16=False,
        report_to=[], use_cpu=True, logging_steps=1, save_strategy="no", max_length=None, seed=0,
        gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        model=model, args=arguments, train_dataset=datasets.Dataset.from_list(ROWS),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )  # fmt: skip
    loss = trainer.train().training_loss
    return loss, {name: tensor.detach() for name, tensor in trainer.model.state_dict().items()}


def ours(chat: ChatTemplate, kernel: Kernel, micro: int, **config: Any) -> float:
    """Takes one step of plain descent on the whole data, in parts of `micro`; the mean loss before it."""
    objective = Sft(chat, SftConfig(**{"context": 128, "packing": "none"} | config))
    examples = prepare(objective, ROWS)
    parts = [objective.collate(examples[at : at + micro], torch.Generator()) for at in range(0, len(examples), micro)]
    count, total = sum(objective.count(part) for part in parts), 0.0
    kernel.zero_grad()
    for part in parts:
        loss = objective.loss(kernel, part)
        (loss.sum / count).backward()
        total += float(loss.sum.detach()) / count
    with torch.no_grad():
        for parameter in kernel.parameters():
            assert parameter.grad is not None
            parameter -= RATE * parameter.grad
    return total


# The start token that the tokenizer puts before a text is the template's here, as TRL adds none.
def chat_of(name: str) -> ChatTemplate:
    return template(name, chat_tokenizer())


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_trap_01_the_step_is_trls_however_the_batch_is_cut(accumulation: int, tmp_path: Path) -> None:
    chat = chat_of("llama3")
    kernel = written(tmp_path / "base", chat)
    loss, weights = stepped_by_trl(tmp_path / "base", tmp_path / "out", accumulation)
    assert ours(chat, kernel, len(ROWS) // accumulation) == pytest.approx(loss, abs=1e-6)
    hf.save(kernel, tmp_path / "ours")
    from safetensors.torch import load_file

    mine = load_file(tmp_path / "ours/model.safetensors")
    assert set(mine) == set(weights)
    for name, tensor in mine.items():
        # transformers computes the loss from logits in float32: gradients are equal to 1e-6, not to the last bit.
        assert torch.allclose(tensor, weights[name], rtol=0, atol=RATE * 1e-6), name


@pytest.mark.parametrize("micro", [1, 3, 4])
def test_trap_19_packed_is_unpacked_in_value_and_gradient(micro: int, tmp_path: Path) -> None:
    chat = chat_of("chatml")
    plain = written(tmp_path / "a", chat)
    packed = hf.load(tmp_path / "a").double()
    alone = ours(chat, plain, 4)
    together = ours(chat, packed, micro, packing="documents")
    assert together == pytest.approx(alone, abs=1e-6)
    for (name, one), (_, other) in zip(plain.named_parameters(), packed.named_parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-7), name
