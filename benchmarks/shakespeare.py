"""Characters of Shakespeare in nanoGPT's time: its own configuration first, then ours for as long as that took.

    python benchmarks/shakespeare.py --nanogpt PATH [--device cpu|cuda] [--threads 2] [--seeds 0 1]
    python benchmarks/shakespeare.py --seconds 120        # without a checkout of nanoGPT: only our part

nanoGPT runs unchanged, as its README says for the device, on files written from the same text (its train.bin,
val.bin and meta.pkl are overwritten). Its time W is the sum of the iterations that it prints; those with an
evaluation count as the median of the others, so neither imports nor evaluations (nor compiling, on a GPU) are in it.
Ours trains for W seconds of wall time, everything from the first step on included, and is not evaluated meanwhile.
On a shared machine equal wall time need not be equal work: read the CPU seconds beside it, and with more threads than
free cores the waiting of small steps for each other makes W long; one thread, pinned (taskset), suffers least.

Both are then judged alike: cross-entropy in nats per character over the whole validation text, in windows that do
not overlap, so each character but the first is predicted once; in windows of nanoGPT's context, and of each one's own.
Of nanoGPT it is the checkpoint that nanoGPT kept, the best by its own estimate. `--device cuda` is untested.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pickle
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import record
from nacre.data import catalogue
from nacre.kernel.config import KernelConfig
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.loss import head_cross_entropy
from nacre.train.objective import Batch, Loss

# nanoGPT's README, for each device; --log_interval=1 on a GPU too, as the printed iterations are the clock.
README = {
    "cpu": (
        "--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 --batch_size=12 --n_layer=4 "
        "--n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
    ),
    "cuda": "--device=cuda --log_interval=1",
}
THEIR_CONTEXT = {"cpu": 64, "cuda": 256}
EVALUATION_CHARACTERS = 16_384  # of one forward pass


@dataclass(frozen=True)
class Setting:
    """What we train for one device; `train` gets its end and its seed later. Chosen on the end of the training text."""

    kernel: dict[str, Any]
    train: dict[str, Any]
    stride: int  # characters between the starts of windows; each is trained once an epoch


OURS = {
    "cpu": Setting(
        kernel={"hidden_size": 112, "layers": 4, "heads": 4, "ffn_size": 304, "max_positions": 64},
        train={
            "optimizer": "muon", "muon_lr": 0.02, "lr": 5e-3, "batch_size": 32, "weight_decay": 0.0,
            "schedule": "wsd", "decay": 0.6,
        },
        stride=8,
    ),
    "cuda": Setting(
        kernel={"hidden_size": 384, "layers": 6, "heads": 6, "ffn_size": 1024, "max_positions": 256, "dropout": 0.2},
        train={
            "optimizer": "muon", "muon_lr": 0.02, "lr": 3e-3, "batch_size": 64, "weight_decay": 0.1,
            "precision": "auto", "compile": True,
        },
        stride=8,
    ),
}  # fmt: skip


# ---- the text


@dataclass(frozen=True)
class Text:
    """The ids of all characters; ids count the sorted characters of both parts, as nanoGPT's do."""

    characters: str
    train: Tensor
    valid: Tensor

    @classmethod
    def read(cls) -> Text:
        folder = catalogue.find("pretrain-en-shakespeare").path
        assert folder is not None
        parts = [(folder / name).read_bytes().decode("utf-8") for name in ("train.txt", "valid.txt")]
        characters = "".join(sorted(set("".join(parts))))
        ids = {character: i for i, character in enumerate(characters)}
        return cls(characters, *(torch.tensor([ids[character] for character in part]) for part in parts))


def validation_loss(logits_of: Callable[[Tensor], Tensor], ids: Tensor, context: int) -> float:
    """Nats per character of `ids` (N,), all but the first; `logits_of` maps ids (B, T) to logits (B, T, V)."""
    whole = (len(ids) - 1) // context * context
    inputs, targets = ids[:whole].view(-1, context), ids[1 : whole + 1].view(-1, context)
    rows = max(1, EVALUATION_CHARACTERS // context)
    pairs = list(zip(torch.split(inputs, rows), torch.split(targets, rows), strict=True))
    if whole < len(ids) - 1:
        pairs.append((ids[None, whole:-1], ids[None, whole + 1 :]))
    total = 0.0
    with torch.inference_mode():
        for given, wanted in pairs:
            logits = logits_of(given).float().flatten(0, 1)
            total += F.cross_entropy(logits, wanted.flatten().to(logits.device), reduction="sum").item()
    return total / (len(ids) - 1)


# ---- nanoGPT


@dataclass(frozen=True)
class Trained:
    """One run. `estimate` is nanoGPT's own, over random batches; its `cpu_seconds` hold imports and evaluations too."""

    name: str
    parameters: int
    context: int
    steps: int
    characters: int
    seconds: float
    cpu_seconds: float
    valid_at_theirs: float
    valid_at_own: float
    estimate: float | None = None
    seed: int | None = None


def prepare(checkout: Path, text: Text) -> None:
    """What nanoGPT's data/shakespeare_char/prepare.py writes, which would download the text."""
    folder = checkout / "data" / "shakespeare_char"
    for name, ids in (("train.bin", text.train), ("val.bin", text.valid)):
        (folder / name).write_bytes(ids.to(torch.uint16).numpy().tobytes())
    stoi = {character: i for i, character in enumerate(text.characters)}
    meta = {"vocab_size": len(stoi), "itos": {i: character for character, i in stoi.items()}, "stoi": stoi}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


def training_seconds(output: str) -> tuple[float, int]:
    """(seconds, iterations): of the printed iterations, those with an evaluation replaced by the median of the rest."""
    taken = {int(i): float(ms) / 1000 for i, ms in re.findall(r"^iter (\d+): loss \S+, time (\S+)ms", output, re.M)}
    evaluated = {int(i) for i in re.findall(r"^step (\d+):", output, re.M)}
    plain = [seconds for i, seconds in taken.items() if i not in evaluated]
    return sum(plain) + statistics.median(plain) * (len(taken) - len(plain)), len(taken)


def nanogpt(checkout: Path, text: Text, device: str, threads: int) -> Trained:
    prepare(checkout, text)
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "train.py", "config/train_shakespeare_char.py", *README[device].split()]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [*command, f"--out_dir={out}"], cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        saved = torch.load(Path(out) / "ckpt.pt", map_location=device)
    spec = importlib.util.spec_from_file_location("nanogpt_model", checkout / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    model = module.GPT(module.GPTConfig(**saved["model_args"])).to(device).eval()
    model.load_state_dict({name.removeprefix("_orig_mod."): weight for name, weight in saved["model"].items()})

    def logits_of(ids: Tensor) -> Tensor:
        # Without targets nanoGPT computes the last position only.
        ids = ids.to(device)
        return model(ids, ids)[0]  # type: ignore[no-any-return]

    seconds, steps = training_seconds(done.stdout)
    context, batch = saved["model_args"]["block_size"], saved["config"]["batch_size"]
    loss = validation_loss(logits_of, text.valid, context)
    return Trained(
        "nanoGPT", sum(weight.numel() for weight in model.parameters()), context, steps, steps * batch * context,
        seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, loss, loss,
        estimate=float(saved["best_val_loss"]),
    )  # fmt: skip


# ---- ours


@dataclass(frozen=True)
class Windows(Batch):
    ids: Tensor
    targets: Tensor


class Characters:
    """The causal objective over windows of one text; an example is the place where its window begins."""

    def __init__(self, text: Tensor, context: int) -> None:
        self.windows, self.context = text.unfold(0, context + 1, 1), context

    def length(self, example: int) -> int:
        return self.context

    def collate(self, examples: Sequence[int], rng: torch.Generator) -> Windows:
        rows = self.windows[torch.tensor(examples)]
        return Windows(rows[:, :-1], rows[:, 1:])

    def watch(self, step: int) -> None:
        del step

    def count(self, batch: Windows) -> int:
        return batch.targets.numel()

    def tokens(self, batch: Windows) -> int:
        return batch.ids.numel()

    def loss(self, kernel: Kernel, batch: Windows) -> Loss:
        hidden = kernel(batch.ids).hidden
        return Loss(*head_cross_entropy(kernel.lm_logits, hidden.flatten(0, 1), batch.targets.flatten()))


def kernel_config(setting: Setting, characters: int) -> KernelConfig:
    return preset("qwen3", vocab_size=characters, kv_heads=setting.kernel["heads"], **setting.kernel)


def nacre(text: Text, setting: Setting, seconds: float, seed: int, device: str, theirs: int) -> Trained:
    """Ours, trained on `text.train` for `seconds` and judged on `text.valid`."""
    config = kernel_config(setting, len(text.characters))
    kernel = Kernel(config, torch.Generator().manual_seed(seed))
    context = config.max_positions
    objective = Characters(text.train, context)
    options = TrainConfig(max_seconds=seconds, seed=seed, checkpoint_seconds=1e9, log_every=100, **setting.train)
    starts = range(0, len(text.train) - context, setting.stride)
    cpu = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        result = train(kernel, objective, starts, options, folder=Path(scratch), device=device)  # type: ignore[arg-type]
    cpu = time.process_time() - cpu

    def loss(window: int) -> float:
        return validation_loss(lambda ids: kernel.lm_logits(kernel(ids.to(device)).hidden), text.valid, window)

    return Trained(
        "nacre", sum(weight.numel() for weight in kernel.parameters()), context, result.steps, result.tokens,
        result.seconds, cpu, loss(theirs), loss(context), seed=seed,
    )  # fmt: skip


# ---- the comparison


def compare(options: argparse.Namespace) -> list[Trained]:
    """nanoGPT, then ours for its time, once per seed; only ours without a checkout."""
    text, context = Text.read(), THEIR_CONTEXT[options.device]
    seconds, runs = options.seconds, []
    if options.nanogpt is None:
        print("no --nanogpt PATH (a checkout of karpathy/nanoGPT): only our part runs, with nothing to compare it to")
    else:
        runs.append(nanogpt(options.nanogpt.resolve(), text, options.device, options.threads))
        seconds = seconds or runs[0].seconds
        print(runs[0], flush=True)
    for seed in options.seeds:
        runs.append(nacre(text, OURS[options.device], seconds, seed, options.device, context))
        print(runs[-1], flush=True)
    return runs


def summarise(runs: Sequence[Trained], context: int) -> None:
    for run in runs:
        own = "" if run.estimate is None else f"; its own estimate {run.estimate:.4f}"
        print(
            f"{run.name:8} {run.parameters / 1e6:.2f}M parameters, {run.steps} steps, {run.characters / 1e6:.2f}M "
            f"characters in {run.seconds:.1f} s ({run.cpu_seconds:.0f} CPU s): {run.valid_at_theirs:.4f} nats in "
            f"windows of {context}, {run.valid_at_own:.4f} in its own of {run.context}{own}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, help="checkout of karpathy/nanoGPT; its data folder is written to")
    parser.add_argument("--device", choices=OURS, default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, help="for ours, instead of nanoGPT's time")
    options = parser.parse_args()
    if options.nanogpt is None and options.seconds is None:
        parser.error("give --nanogpt PATH, or --seconds for our part alone")
    torch.set_num_threads(options.threads)
    where = record.machine(["torch", "nacre"]) | {"device": options.device, "threads": options.threads}
    runs = compare(options)
    rows = [where | {name: _plain(value) for name, value in vars(run).items()} for run in runs]
    print(f"appended to {record.append('shakespeare', rows)}")
    summarise(runs, THEIR_CONTEXT[options.device])


def _plain(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
