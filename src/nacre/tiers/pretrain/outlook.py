"""What the pretraining steps of a plan are going to weigh and to cost, before any of them runs. Light: no torch.

Figures are estimates and say on what they rest: bytes of text divided by those of a typical token, the most that a
config allows, or, for a step that was made, what was measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.data.read import data_files
from nacre.errors import NacreError
from nacre.kernel.config import Head, KernelConfig
from nacre.kernel.hf_config import read_config
from nacre.kernel.presets import preset
from nacre.lineage.store import Resolved
from nacre.recipe.hardware import Hardware
from nacre.recipe.plan import Plan, PlannedStep
from nacre.recipe.scaling import (
    BYTES_PER_TOKEN,
    SHAPES,
    Rule,
    Shape,
    Sized,
    Weight,
    budget_flops,
    explain,
    money_text,
    size,
    vocabulary,
)
from nacre.tiers.pretrain.effort import EFFORTS, RECIPES, allowed, tuned_flops
from nacre.tiers.pretrain.texts import HELD_OUT

HEADS: Mapping[str, Head] = {
    "pretrain.bert": "pretraining",
    "pretrain.causal": "lm",
    "pretrain.mlm": "mlm",
    "pretrain.span": "lm",
}
SOLVE = "pretrain.solve"
UNZIPPED = 3.5  # bytes of text from one of a gzipped file, roughly


SMALL = 20_000_000  # parameters; smaller kernels leave an accelerator waiting for the next call
SMALL_SAID = (
    "a kernel this small reaches far less than the assumed share of an accelerator: times there are lower bounds"
)


@dataclass(frozen=True)
class Outlook:
    """One pretraining step. What cannot be known yet is None, and `basis` says why, or what a figure rests on."""

    step: str
    stage: str
    kernel: KernelConfig | None
    context: int
    tokens: float | None
    flops: float | None
    unique_tokens: float | None
    basis: str

    @property
    def weight(self) -> Weight | None:
        return None if self.kernel is None else Weight.of(self.kernel, self.context)

    @property
    def caution(self) -> str:
        """What the times are not worth, in words; empty where nothing is to be said."""
        weight = self.weight
        return SMALL_SAID if weight is not None and weight.parameters < SMALL else ""

    def on(self, machine: Hardware) -> dict[str, Any]:
        """Hours and money on a machine; None where unknown."""
        seconds = None if self.flops is None else machine.seconds(self.flops)
        return {
            "hardware": machine.name,
            "hours": None if seconds is None else seconds / 3600,
            "money": None if seconds is None else machine.money(seconds),
            "currency": machine.currency,
            "assumed": assumed(machine),
        }

    def for_budget(self, text: str, machine: Hardware) -> Sized | None:
        """The size that a budget on a machine buys for this step's design and data; None where either is unknown."""
        kernel, unique = self.kernel, self.unique_tokens
        if kernel is None or unique is None:
            return None

        def design(shape: Shape) -> KernelConfig:
            heads = max(1, shape.hidden_size // kernel.head_width)
            return kernel.replace(
                hidden_size=shape.hidden_size,
                layers=shape.layers,
                heads=heads,
                kv_heads=heads,
                head_dim=None if shape.hidden_size % heads == 0 else kernel.head_width,
                ffn_size=None,
                decoder_layers=None,
            )

        # Heads keep their width: shapes that it does not divide are no kernels of this design.
        shapes = [one for one in SHAPES if one.hidden_size % kernel.head_width == 0]
        return size(budget_flops(text, machine), unique, design, self.context, shapes=shapes)

    def to_dict(self, machines: Sequence[Hardware], budget: str | None = None) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        weight = self.weight
        plain: dict[str, Any] = {
            "step": self.step,
            "stage": self.stage,
            "parameters": None if weight is None else weight.parameters,
            "embedding_parameters": None if weight is None else weight.embedding,
            "tokens": None if self.tokens is None else round(self.tokens),
            "unique_tokens": None if self.unique_tokens is None else round(self.unique_tokens),
            "flops": self.flops,
            "basis": self.basis,
            "caution": self.caution,
            "on": [self.on(machine) for machine in machines],
        }
        if budget is not None:
            found = [(machine.name, self.for_budget(budget, machine)) for machine in machines]
            plain["budget"] = {"given": budget, **{name: one and one.to_dict() for name, one in found}}
        return plain


def assumed(machine: Hardware) -> str:
    """On what hours and money rest, in words."""
    peak = machine.peak_tflops[machine.precision]
    price = "price unknown" if machine.price_per_hour is None else f"{machine.price_per_hour:g} {machine.currency}/h"
    return f"{machine.precision} at {machine.utilisation:.0%} of {peak:g} TFLOP/s, {price}, {machine.dated}, editable"


def outlooks(plan: Plan) -> list[Outlook]:
    """The pretraining steps of a plan, in its order."""
    view = _View(plan)
    found = []
    for step in plan.steps:
        name = step.draft.stage.name
        if name in HEADS:
            found.append(view.pretraining(step))
        elif name == SOLVE:
            found.append(view.solving(step))
    return found


def explained(one: Outlook, machines: Sequence[Hardware], budget: str | None = None) -> list[str]:
    """The budget's answers for a step, machine by machine, as text."""
    lines: list[str] = []
    for machine in machines if budget else ():
        sized = one.for_budget(budget or "", machine)
        lines.append(f"\n{one.step}, with {budget} on {machine.name}:")
        lines.append("  unknown until its kernel and data are" if sized is None else _indented(explain(sized, machine)))
    return lines


def money_cell(one: Outlook, machine: Hardware) -> str:
    """What a step costs on a machine, in words."""
    return "unknown" if one.flops is None else money_text(machine, machine.seconds(one.flops))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


class _View:
    """A plan looked at for the kernels and texts behind its steps."""

    def __init__(self, plan: Plan) -> None:
        self.steps = {step.name: step for step in plan.steps}

    def pretraining(self, step: PlannedStep) -> Outlook:
        config = step.draft.config
        kernel = self._kernel(step.draft.sources.get("model"))
        if kernel is not None:
            kernel = kernel.replace(head=HEADS[step.draft.stage.name], labels=(), pooler=None)
        context = config.objective.context
        unique = self._tokens_of(step, ("data",))
        tokens, basis = _trained(config.train, context, unique)
        cost = step.product.record.cost if step.product is not None and step.product.record else None
        if cost is not None and cost.tokens is not None:
            return self._outlook(step, kernel, context, (float(cost.tokens), cost.flops), unique, "measured")
        flops = None if kernel is None or tokens is None else tokens * Weight.of(kernel, context).flops_per_token
        if kernel is None:
            basis += "; its kernel is unknown until it is made"
        return self._outlook(step, kernel, context, (tokens, flops), unique, basis)

    def solving(self, step: PlannedStep) -> Outlook:
        """Tier 5 as a solver: its budget is known at once, its kernel once the task is prepared."""
        config = step.draft.config
        flops = config.flops or (None if config.steps else EFFORTS[config.effort].flops)
        said = "the budget" if config.flops else f"effort {config.effort}" if flops else f"{config.steps} steps"
        unique = self._tokens_of(step, ("task", "corpus"))
        kind = _kind(step.inputs.get("task"))
        if kind is None or unique is None:
            return self._outlook(step, None, 0, (None, flops), unique, f"about: {said}; size unknown until its task is")
        recipe, context = RECIPES[kind], RECIPES[kind].longest // 4
        entries = vocabulary(unique * BYTES_PER_TOKEN)

        def design(shape: Shape) -> KernelConfig:
            made = preset(
                config.preset or recipe.preset,
                **{"hidden_size": shape.hidden_size, "layers": shape.layers, "heads": shape.heads}
                | {"vocab_size": entries, "max_positions": recipe.longest}
                | dict(recipe.choices),
            )
            return made if made.layout == "encoder-decoder" else made.replace(head="none", pooler=None)

        rule = Rule(config.ratio, config.epochs)
        sized = size(flops or EFFORTS[config.effort].flops, unique, design, context, rule=rule, shapes=allowed(recipe))
        if flops is not None and not config.flops:
            flops = tuned_flops(EFFORTS[config.effort], kind)
        tokens = None if flops is None else flops / sized.weight.flops_per_token
        basis = f"about: {said}; kernel: {sized.to_dict()['why']}"
        return self._outlook(step, design(sized.shape), context, (tokens, flops), unique, basis)

    def _outlook(
        self,
        step: PlannedStep,
        kernel: KernelConfig | None,
        context: int,
        trained: tuple[float | None, float | None],
        unique: float | None,
        basis: str,
    ) -> Outlook:
        tokens, flops = trained
        return Outlook(step.name, step.draft.stage.name, kernel, context, tokens, flops, unique, basis)

    def _kernel(self, source: str | Resolved | None) -> KernelConfig | None:
        """The kernel that a source is or will be; None where only its making will tell."""
        if isinstance(source, Resolved):
            return _read_kernel(source.path)
        step = self.steps.get(source) if source is not None else None
        if step is None:
            return None
        if step.product is not None:
            return _read_kernel(step.product.path)
        if step.draft.stage.name != "kernel.initialise":
            return self._kernel(step.draft.sources.get("model"))
        given = dict(step.draft.config.choices)
        entries = self._entries(step.draft.sources.get("tokenizer"))
        if entries is not None:
            given.setdefault("vocab_size", entries)
        return preset(step.draft.config.preset, **given)

    def _entries(self, source: str | Resolved | None) -> int | None:
        """The size of a vocabulary, as it is asked for where it is not made yet."""
        step = self.steps.get(source) if isinstance(source, str) else None
        asked = getattr(step.draft.config, "vocab_size", None) if step is not None else None
        return asked if isinstance(asked, int) else None

    def _tokens_of(self, step: PlannedStep, names: Sequence[str]) -> float | None:
        """Tokens of the text behind inputs of a step, estimated from the size of its files; None where unknown."""
        n_bytes = sum(self._bytes(step.draft.sources.get(name)) for name in names)
        return n_bytes / BYTES_PER_TOKEN if n_bytes else None

    def _bytes(self, source: str | Resolved | None) -> float:
        """Bytes of training text of an artifact, or of all that goes into a step which has not been made."""
        if isinstance(source, Resolved):
            return sum(_text_bytes(source.path))
        step = self.steps.get(source) if source is not None else None
        if step is None:
            return 0.0
        if step.product is not None:
            return sum(_text_bytes(step.product.path))
        sources = {name: one for name, one in step.draft.sources.items() if name != "against"}
        return sum(self._bytes(one) for one in sources.values())


def _text_bytes(path: Path) -> Iterator[float]:
    try:
        files = data_files(path)
    except NacreError:
        return  # an input without text: a model, say
    for file in files:
        if file.name.partition(".")[0] not in HELD_OUT:
            yield file.stat().st_size * (UNZIPPED if file.suffix == ".gz" else 1.0)


def _read_kernel(path: Path) -> KernelConfig | None:
    file = path / "config.json"
    return read_config(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def _kind(task: Path | None) -> Any:
    """The kind of a prepared task; None where it is not prepared yet."""
    file = task / "task.json" if task is not None else None
    return json.loads(file.read_text(encoding="utf-8"))["kind"] if file is not None and file.is_file() else None


def _trained(config: Any, context: int, unique: float | None) -> tuple[float | None, str]:
    """Tokens that a run trains on, and what that rests on."""
    by_steps = config.max_steps * config.batch_size * context if config.max_steps else None
    by_epochs = config.epochs * unique if config.epochs and unique is not None else None
    known = [one for one in (by_steps, by_epochs) if one is not None]
    if not known:
        why = "its data are not made yet" if config.epochs else "the clock ends the run"
        return None, f"tokens unknown: {why}"
    if by_epochs is not None and by_epochs == min(known):
        return by_epochs, f"estimated: {config.epochs:g} passes over about {unique:,.0f} tokens of text"
    return by_steps, f"at most: {config.max_steps:,} steps of {config.batch_size} full texts"
