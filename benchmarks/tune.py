"""LoRA fine-tuning on packed conversations: Nacre's loop against TRL with PEFT, from the same weights, in turns.

    python benchmarks/tune.py [--sizes 5M] [--rounds 3] [--steps 8] [--variants ...] [--check] [--record]

Both start from one checkpoint and one adapter, in float32, with blocks of CONTEXT tokens that hold several
conversations which do not see each other. TRL packs by the same rule (best fit, longest first), then joins the blocks
of a batch to one row, which flash attention reads piece by piece; on a processor transformers isolates the pieces by
a dense mask over that whole row (sdpa). `one by one` accumulates rows of one block instead, which makes
that mask small; `trl padded` does not pack. A run is a forked process, so that its peak of memory is its own; tokens
are those of conversations, each counted once, and never padding. `--check` takes one step over the same conversations
on both sides and compares loss and adapter. Needs Linux.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from datasets import Dataset, disable_progress_bars
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.sft_config import SFTConfig as TrlConfig
from trl.trainer.sft_trainer import SFTTrainer

import record
from nacre.data.chat.template import ChatTemplate
from nacre.data.read import read
from nacre.data.tokenizer import Tokenizer, TokenizerConfig
from nacre.data.tokenizer import train as train_tokenizer
from nacre.kernel import hf
from nacre.kernel.adapters import adapted, peft
from nacre.kernel.adapters.config import AdapterConfig
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objective import prepare
from nacre.train.objectives.config_align import SftConfig
from nacre.train.objectives.sft import Sft

DATA = Path(os.environ.get("NACRE_DATA", Path(__file__).parents[2] / "shared" / "data")) / "sft-bilingual-demo"
CONTEXT, VOCABULARY, BATCH, WARM_UP, RATE = 256, 4096, 8, 2, 1e-3
SIZES = {
    "pico": {"hidden_size": 64, "layers": 2, "heads": 4, "ffn_size": 176},
    "5M": {"hidden_size": 256, "layers": 4, "heads": 4, "ffn_size": 704},
    "15M": {"hidden_size": 384, "layers": 7, "heads": 6, "ffn_size": 1024},
}
LORA = AdapterConfig("lora", rank=8, alpha=16.0, targets=("q", "k", "v", "o", "gate", "up", "down"))
Row = dict[str, Any]


@dataclass
class Course:
    """What a run went through: the end of each step in wall and CPU time, its tokens and its loss; its memory."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)  # before training, at its peak
    trained: int = 0

    def tick(self) -> None:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def speeds(self) -> tuple[float, float]:
        """Tokens per second and per CPU second, after the warm-up."""
        tokens = sum(self.tokens[WARM_UP : len(self.wall)])
        return tokens / (self.wall[-1] - self.wall[WARM_UP - 1]), tokens / (self.cpu[-1] - self.cpu[WARM_UP - 1])


def resident_mib(which: str) -> float:
    """VmRSS or VmHWM of this process."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(which)) / 1024


def measured_memory(course: Course, run: Callable[[], object]) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = resident_mib("VmRSS")
    run()
    course.memory_mib = [before, resident_mib("VmHWM")]


# ---- what both sides start from


@dataclass(frozen=True)
class Start:
    """A folder with model, tokenizer, template and `adapter/`, and conversations that fit into a block."""

    folder: Path
    rows: list[Row]


def start(size: str, folder: Path, conversations: int) -> Start:
    talks = [row for file in sorted(DATA.glob("*.jsonl.gz")) for row in islice(read(file), conversations)]
    texts = [message["content"] for row in talks for message in row["messages"]]
    needed = ("<|im_start|>", "<|im_end|>")
    config = TokenizerConfig(algorithm="bpe", style="gpt", vocab_size=VOCABULARY, extra_special=needed)
    tokenizer = train_tokenizer(texts, config, folder)
    chat = ChatTemplate.named("chatml", tokenizer)
    (folder / "chat_template.jinja").write_text(chat.source)
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    sizes = {**SIZES[size], "vocab_size": len(tokenizer), "max_positions": CONTEXT}
    kernel = Kernel(preset("llama2", **sizes, **ids, head="lm"), torch.Generator().manual_seed(0))
    hf.save(kernel, folder)
    adapted.attach(kernel, LORA, torch.Generator().manual_seed(1))
    peft.save(kernel, folder / "adapter", str(folder))
    keeps = ("role", "content")
    plain = [{"messages": [{key: one[key] for key in keeps} for one in row["messages"]]} for row in talks]
    # In order of the data, both languages in turns; what is longer is left out of both.
    halves = plain[: len(plain) // 2], plain[len(plain) // 2 :]
    mixed = [row for pair in zip(*halves, strict=True) for row in pair]
    return Start(folder, [row for row in mixed if len(chat.tokens(row["messages"]).ids) <= CONTEXT])


# ---- the variants


def ours(given: Start, steps: int, batch: int, **options: Any) -> Course:
    course = Course()
    kernel = hf.load(given.folder)
    peft.load(kernel, given.folder / "adapter")
    chat = ChatTemplate.named("chatml", Tokenizer.load(given.folder))
    objective = Sft(chat, SftConfig(context=CONTEXT))
    examples = prepare(objective, given.rows)
    course.trained = sum(one.numel() for one in kernel.parameters() if one.requires_grad)
    # A run of n + 1 tokens makes n predictions.
    sizes = [sum(len(run) + 1 for run in example.runs) for example in examples]
    course.tokens = [sum(sizes[at : at + batch]) for at in range(0, len(sizes), batch)]

    class Sink:
        def update(self, step: int, total: int | None = None, **metrics: Any) -> None:
            course.tick()
            course.losses.append(metrics["loss"])

        def note(self, event: str, **details: Any) -> None:
            pass

    config = TrainConfig(
        max_steps=steps, batch_size=batch, lr=RATE, weight_decay=0.0, schedule="constant", warmup=0.0, shuffle=False,
        log_every=1, checkpoint_seconds=1e9, clip_norm=1.0, **options,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        measured_memory(course, lambda: train(kernel, objective, examples, config, folder=place, progress=Sink()))
    peft.save(kernel, given.folder / "ours", str(given.folder))
    return course


class Ticking(TrainerCallback):
    def __init__(self, course: Course) -> None:
        self.course = course

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.course.tick()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.course.losses.append(float(logs["loss"]))


class Counting(SFTTrainer):
    """TRL's trainer, examples in order, that counts the tokens of each step."""

    course: Course

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        from torch.utils.data import SequentialSampler

        return SequentialSampler(cast(Any, self.train_dataset))

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        batches, items = super().get_batch_samples(*args, **kwargs)
        self.course.tokens.append(sum(_real(batch) for batch in batches))
        return batches, items


def _real(batch: dict[str, Tensor]) -> int:
    mask = batch.get("attention_mask")
    return int(batch["input_ids"].numel() if mask is None else mask.sum())


def trl(given: Start, steps: int, batch: int, *, packing: bool = True, rows: int | None = None) -> Course:
    """`rows` of the batch go through the model at once; the rest is accumulated."""
    course = Course()
    base = AutoModelForCausalLM.from_pretrained(given.folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, given.folder / "adapter", is_trainable=True)
    course.trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    at_once = rows or batch
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrlConfig(
            scratch, max_steps=steps, per_device_train_batch_size=at_once,
            gradient_accumulation_steps=batch // at_once, learning_rate=RATE, weight_decay=0.0, adam_beta2=0.95,
            lr_scheduler_type="constant", max_grad_norm=1.0, logging_steps=1, report_to="none", save_strategy="no",
            use_cpu=True, bf16=False, disable_tqdm=True, gradient_checkpointing=False, assistant_only_loss=True,
            packing=packing, max_length=CONTEXT, shuffle_dataset=False,
        )  # fmt: skip
        trainer = Counting(
            model=model, args=arguments, train_dataset=Dataset.from_list(given.rows), callbacks=[Ticking(course)],
            processing_class=AutoTokenizer.from_pretrained(given.folder),
        )  # fmt: skip
        trainer.course = course
        measured_memory(course, trainer.train)
        model.save_pretrained(str(given.folder / "theirs"))
    return course


VARIANTS: dict[str, tuple[Callable[..., Course], dict[str, Any]]] = {
    "trl packed": (trl, {}),
    "nacre packed": (ours, {}),
    "trl one by one": (trl, {"rows": 1}),
    "nacre one by one": (ours, {"micro_batch": 1}),
    "trl padded": (trl, {"packing": False}),
}


def alone(run: Callable[..., Course], *given: Any, **options: Any) -> Course:
    """The run in a process of its own, forked from this one, which holds the imports of both sides."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        sender.send(run(*given, **options))

    process = context.Process(target=work)
    process.start()
    sender.close()
    try:
        return receiver.recv()  # type: ignore[no-any-return]
    except EOFError:
        raise SystemExit(f"a run of {run.__name__} ended without a result") from None
    finally:
        process.join()


def check(size: str, conversations: int = 24) -> None:
    """One step over the same conversations: how far apart the losses and the adapters after it are."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as name:
        whole = start(size, Path(name), 400)
        given = Start(whole.folder, whole.rows[:conversations])
        mine, peer = (alone(run, given, 1, 4 * conversations) for run in (ours, trl))
        first = load_file(Path(name) / "ours/adapter_model.safetensors")
        second = load_file(Path(name) / "theirs/adapter_model.safetensors")
        apart = max(float((first[key] - second[key]).abs().max()) for key in first)
        assert set(first) == set(second)
        print(
            f"one step over {conversations} conversations: {mine.tokens[0]:,} and {peer.tokens[0]:,} tokens; trained "
            f"parameters {mine.trained:,} and {peer.trained:,}; losses {mine.losses[0]:.6f} and {peer.losses[0]:.6f}; "
            f"adapters at most {apart:.1e} apart after a step of {RATE}"
        )


def measure(size: str, names: Sequence[str], rounds: int, steps: int) -> Iterator[Row]:
    """One row per variant and round, as soon as it is measured."""
    with tempfile.TemporaryDirectory() as folder:
        given = start(size, Path(folder), 400)
        for turn in range(rounds):
            for name in names:
                run, options = VARIANTS[name]
                course = alone(run, given, steps, BATCH, **options)
                speed, cpu_speed = course.speeds()
                before, peak = course.memory_mib
                row = {
                    "size": size, "variant": name, "round": turn, "steps": steps, "context": CONTEXT, "batch": BATCH,
                    "trained": course.trained, "tokens_per_s": round(speed), "tokens_per_cpu_s": round(cpu_speed),
                    "peak_memory_mib": round(peak), "above_start_mib": round(peak - before),
                    "losses": " ".join(f"{loss:.4f}" for loss in course.losses),
                }  # fmt: skip
                print({key: value for key, value in row.items() if key != "losses"}, flush=True)
                yield row


def summarise(rows: list[Row]) -> None:
    """Nacre against TRL in the same round, every variant against every other."""
    units = ("tokens_per_s", "tokens_per_cpu_s", "peak_memory_mib", "above_start_mib")
    found = {(row["size"], row["variant"], row["round"]): row for row in rows}
    kinds = dict.fromkeys((size, variant) for size, variant, _ in found)
    for size, name in kinds:
        for other in (one for where, one in kinds if where == size and one.startswith("trl")):
            pairs = [
                (row, found[size, other, row["round"]])
                for row in rows
                if (row["size"], row["variant"]) == (size, name) and (size, other, row["round"]) in found
            ]
            if pairs and name.startswith("nacre"):
                ratios = {unit: [mine[unit] / peer[unit] for mine, peer in pairs] for unit in units}
                told = "; ".join(f"{unit} {record.spread(values)}" for unit, values in ratios.items())
                print(f"{size} {name} to {other}: {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["5M"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--check", action="store_true", help="compare one step, and measure nothing")
    parser.add_argument("--record", action="store_true", help="append the rows to results/tune.csv")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    disable_progress_bars()
    transformers.logging.set_verbosity_error()
    if options.check:
        for size in options.sizes:
            check(size)
        return
    packages = ["torch", "transformers", "trl", "peft", "nacre"]
    where = record.machine(packages) | {"threads": torch.get_num_threads()}
    rows = []
    for size in options.sizes:
        for row in measure(size, options.variants, options.rounds, options.steps):
            rows.append(row)
            if options.record:
                record.append("tune", [{**where, **row}])
    summarise(rows)


if __name__ == "__main__":
    main()
