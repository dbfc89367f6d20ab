"""Training speed: Nacre's loop against transformers.Trainer, from the same weights, on the same batches, in turns.

    python benchmarks/train.py [--sizes 5M 15M] [--rounds 3] [--steps 10] [--threads N] [--variants ...]

Each round runs every variant once; a ratio compares variants of one round. Text is the standard library's source.
Speed is given per second and per CPU second of the process: on a shared machine only the latter can be compared.
Variants in bfloat16 run where the processor multiplies in it, unless they are named.
"""

from __future__ import annotations

import argparse
import re
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import record
from nacre.kernel import hf
from nacre.kernel.anatomy import anatomy
from nacre.kernel.config import KernelConfig
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.loss import head_cross_entropy
from nacre.train.objective import IGNORE, Batch, Loss
from nacre.train.precision import multiplies_in_bfloat16

CONTEXT, VOCABULARY, BATCH, WARM_UP = 256, 4096, 8, 3
SIZES = {
    "5M": {"hidden_size": 256, "layers": 4, "heads": 4, "ffn_size": 704},
    "15M": {"hidden_size": 384, "layers": 7, "heads": 6, "ffn_size": 1024},
}
RATE = 1e-3


@dataclass
class Clock:
    """When each step ended, in wall and in CPU time, and its loss."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def tick(self) -> None:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def speeds(self, tokens_per_step: int) -> tuple[float, float]:
        """Tokens per second and per CPU second, after the warm-up."""
        tokens = tokens_per_step * (len(self.wall) - WARM_UP)
        return tokens / (self.wall[-1] - self.wall[WARM_UP - 1]), tokens / (self.cpu[-1] - self.cpu[WARM_UP - 1])


# ---- the task: next tokens of blocks of equal length


def blocks(count: int) -> list[Tensor]:
    """Blocks of CONTEXT token ids: words, blanks and signs of the standard library, the frequent ones."""
    words: list[str] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        words += re.findall(r"[A-Za-z_]+|\s+|.", path.read_text(encoding="utf-8"))
        if len(words) > 2 * count * CONTEXT:
            break
    known = {word: i + 1 for i, (word, _) in enumerate(Counter(words).most_common(VOCABULARY - 1))}
    ids = torch.tensor([known.get(word, 0) for word in words])
    return list(ids.unfold(0, CONTEXT, CONTEXT)[:count])


@dataclass(frozen=True)
class BlockBatch(Batch):
    ids: Tensor
    targets: Tensor


class Blocks:
    """The causal objective without a tokenizer."""

    def length(self, example: Tensor) -> int:
        return CONTEXT

    def collate(self, examples: Sequence[Tensor], rng: torch.Generator) -> BlockBatch:
        rows = torch.stack(list(examples))
        # The last position predicts nothing, as in LlamaForCausalLM.
        return BlockBatch(rows, F.pad(rows[:, 1:], (0, 1), value=IGNORE))

    def watch(self, step: int) -> None:
        del step

    def count(self, batch: BlockBatch) -> int:
        return batch.targets[:, 1:].numel()

    def tokens(self, batch: BlockBatch) -> int:
        return batch.ids.numel()

    def loss(self, kernel: Kernel, batch: BlockBatch) -> Loss:
        hidden = kernel(batch.ids).hidden
        return Loss(*head_cross_entropy(kernel.lm_logits, hidden.flatten(0, 1), batch.targets.flatten()))


# ---- the variants


def ours(folder: Path, rows: list[Tensor], steps: int, **options: Any) -> Clock:
    clock = Clock()

    class Sink:
        def update(self, step: int, total: int | None = None, **metrics: Any) -> None:
            clock.tick()
            clock.losses.append(metrics["loss"])

        def note(self, event: str, **details: Any) -> None:
            pass

    config = TrainConfig(
        max_steps=steps, batch_size=BATCH, lr=RATE, weight_decay=0.01, schedule="constant", warmup=0.0, shuffle=False,
        log_every=1, checkpoint_seconds=1e9, **options,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        train(hf.load(folder), Blocks(), rows, config, folder=Path(scratch), progress=Sink())  # type: ignore[arg-type]
    return clock


def trainer(folder: Path, rows: list[Tensor], steps: int, **options: Any) -> Clock:
    """transformers.Trainer with its defaults, but a constant rate, our betas and examples in order."""
    from torch.utils.data import SequentialSampler
    from transformers import LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    clock = Clock()

    class Ticking(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.tick()

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
        ) -> None:
            if logs and "loss" in logs:
                clock.losses.append(float(logs["loss"]))

    class InOrder(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    data = [{"input_ids": row, "labels": row} for row in rows]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch, max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=RATE, weight_decay=0.01,
            adam_beta2=0.95, lr_scheduler_type="constant", logging_steps=1, report_to="none", save_strategy="no",
            use_cpu=True, disable_tqdm=True, **options,
        )  # fmt: skip
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        peer = InOrder(model=model, args=arguments, train_dataset=data, callbacks=[Ticking()])
        peer.train()
    return clock


VARIANTS: dict[str, tuple[Callable[..., Clock], dict[str, Any]]] = {
    "trainer float32": (trainer, {}),
    "nacre float32": (ours, {}),
    "nacre float32 compile": (ours, {"compile": True}),
    "trainer bf16": (trainer, {"bf16": True}),
    "trainer bf16 compile": (trainer, {"bf16": True, "torch_compile": True}),
    "nacre bf16_autocast": (ours, {"precision": "bf16_autocast"}),
    "nacre bf16_autocast compile": (ours, {"precision": "bf16_autocast", "compile": True}),
    "nacre bf16": (ours, {"precision": "bf16"}),
    "nacre bf16 compile": (ours, {"precision": "bf16", "compile": True}),
}


def peak_gflops(dtype: torch.dtype) -> float:
    """The best rate of a matrix product, over a few shapes and 20 tries each."""
    best = 0.0
    for rows, inner, columns in [(2048, 256, 704), (2048, 384, 1024), (1024, 1024, 1024), (2048, 2048, 2048)]:
        a, b = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
        for _ in range(20):
            began = time.perf_counter()
            a @ b
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - began) / 1e9)
    return best


def kernel_config(size: str) -> KernelConfig:
    return preset("llama2", vocab_size=VOCABULARY, max_positions=CONTEXT, **SIZES[size])


def measure(size: str, names: Sequence[str], rounds: int, steps: int) -> Iterator[dict[str, Any]]:
    """One row per variant and round, as soon as it is measured."""
    config = kernel_config(size)
    rows, forward = blocks(BATCH * steps), sum(anatomy(config, CONTEXT).flops_per_token.values())
    with tempfile.TemporaryDirectory() as folder:
        hf.save(Kernel(config, torch.Generator().manual_seed(0)), Path(folder))
        for turn in range(rounds):
            for name in names:
                run, options = VARIANTS[name]
                clock = run(Path(folder), rows, steps, **options)
                speed, cpu_speed = clock.speeds(BATCH * CONTEXT)
                peak = peak_gflops(torch.bfloat16 if "bf16" in name else torch.float32)
                row = {
                    "size": size, "parameters": anatomy(config).total_parameters, "variant": name, "round": turn,
                    "steps": steps, "tokens_per_s": round(speed), "tokens_per_cpu_s": round(cpu_speed),
                    "peak_gflops": round(peak), "share_of_peak": round(3 * forward * speed / 1e9 / peak, 3),
                    "losses": " ".join(f"{loss:.4f}" for loss in clock.losses),
                }  # fmt: skip
                print({k: v for k, v in row.items() if k != "losses"}, flush=True)
                yield row


def summarise(rows: list[dict[str, Any]]) -> None:
    """Each variant against the Trainer in the same round; the largest difference of its losses from the Trainer's."""
    for size in dict.fromkeys(row["size"] for row in rows):
        of_size = [row for row in rows if row["size"] == size]
        base = {row["round"]: row for row in of_size if row["variant"] == "trainer float32"}
        for name in dict.fromkeys(row["variant"] for row in of_size):
            mine = [row for row in of_size if row["variant"] == name and row["round"] in base]
            ratios = [
                [row[unit] / base[row["round"]][unit] for row in mine] for unit in ("tokens_per_s", "tokens_per_cpu_s")
            ]
            apart = max((
                abs(float(a) - float(b))
                for row in mine
                for a, b in zip(row["losses"].split(), base[row["round"]]["losses"].split(), strict=True)
            ), default=float("nan"))  # fmt: skip
            if mine:
                print(
                    f"{size:4} {name:28} {record.spread(ratios[0])} times the Trainer in float32, per CPU second "
                    f"{record.spread(ratios[1])}; losses at most {apart:.4f} apart"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = options.variants
    if names is None:
        hardware = multiplies_in_bfloat16(torch.device("cpu"))
        names = [name for name in VARIANTS if hardware or "bf16" not in name]
        if not hardware:
            print("this processor has no bfloat16 matrix product: the bfloat16 variants are left out")
    where = record.machine(["torch", "transformers", "nacre"]) | {"threads": torch.get_num_threads()}
    rows = []
    for size in options.sizes:
        for row in measure(size, names, options.rounds, options.steps):
            rows.append(row)
            record.append("train", [{**where, **row}])
    summarise(rows)


if __name__ == "__main__":
    main()
