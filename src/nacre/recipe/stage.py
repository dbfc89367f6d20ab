"""A stage is one step of a recipe: a function from artifacts to an artifact.

    @dataclass(frozen=True)
    class CleanConfig:
        min_chars: int = 5

    @stage("data.clean", produces="dataset", inputs={"source": Input("dataset", "made_from")})
    def clean(config: CleanConfig, work: Work) -> dict[str, Scalar]:
        rows = keep(read(work.inputs["source"]), config.min_chars)
        ...                                     # write the artifact into work.out
        return {"rows": n_rows}                 # metrics, for the record and the final table

A new stage costs one function and one line in `catalogue.py`.

Convention: `nacre plan` needs the signature and config of every stage and must start fast, so a module named in the
catalogue is light. It holds configs (frozen dataclasses of plain values) and stage functions; torch, pyarrow, sklearn
and modules that import them are imported inside the function, or by a worker module that the function imports:

    def pretrain(config: PretrainConfig, work: Work) -> dict[str, Scalar]:
        from nacre.tiers.pretrain.worker import pretrain_kernel
        return pretrain_kernel(config, work)

Laws that the runner relies on (and its tests enforce for the runner's part):
- The same config, inputs and seed give the same bytes in `work.out` on CPU: no times, no absolute paths, no host names.
- A stage may be killed at any moment and called again: `work.out` is then empty again (except `logs/`), while
  `work.scratch` still holds what it held. What is half-written in scratch is the stage's to notice.
- Bump `revision` when the code changes what the same config produces: cached artifacts are then made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

from nacre.engine.room import EngineRoom
from nacre.errors import ConfigError
from nacre.lineage.record import KINDS, RELATIONS
from nacre.progress import Progress, Scalar, Silent

Function = Callable[[Any, "Work"], Mapping[str, Scalar]]
Check = Callable[[Any, Mapping[str, Path]], None]


@dataclass(frozen=True)
class Input:
    """What a stage takes: an artifact of `kind` (`any` takes every kind), and how its product relates to it."""

    kind: str
    relation: str
    optional: bool = False

    def __post_init__(self) -> None:
        if self.kind != "any" and self.kind not in KINDS:
            raise ConfigError(f"unknown kind of input {self.kind!r}", remedy=f"one of: any, {', '.join(KINDS)}")
        if self.relation not in RELATIONS:
            raise ConfigError(f"unknown relation {self.relation!r}", remedy=f"one of: {', '.join(RELATIONS)}")


@dataclass
class Work:
    """What the runner hands a stage.

    `inputs` holds a folder or file per given input (an optional input that is not given is absent). Write the artifact
    into `out`. `scratch` survives a kill: checkpoints live there. `device` is `cpu`, `cuda` or `mps`, never `auto`.
    `engines` opens the engine in an input folder, under the command's budget and with its cache.
    """

    inputs: Mapping[str, Path]
    out: Path
    scratch: Path
    seed: int = 0
    progress: Progress = field(default_factory=Silent)
    device: str = "cpu"
    engines: EngineRoom = field(default_factory=EngineRoom)
    tokens: int | None = None
    flops: float | None = None
    licence: str | None = None
    notes: list[str] = field(default_factory=list)

    def spent(self, *, tokens: int | None = None, flops: float | None = None) -> None:
        """Says what the whole step cost beyond time and memory, for the record's `cost`."""
        self.tokens = self.tokens if tokens is None else tokens
        self.flops = self.flops if flops is None else flops

    def declare(self, *, licence: str | None = None, note: str | None = None) -> None:
        """Says what only the stage knows: the artifact's own licence (else inherited), or a remark for the record."""
        self.licence = licence or self.licence
        if note:
            self.notes.append(note)


@dataclass(frozen=True)
class Stage:
    """A stage function with its contract. Calling it calls the function."""

    name: str
    produces: str
    inputs: Mapping[str, Input]
    function: Function
    check: Check | None = None
    revision: int = 1

    def __call__(self, config: Any, work: Work) -> Mapping[str, Scalar]:
        return self.function(config, work)

    @cached_property
    def config_type(self) -> type:
        """The dataclass that annotates the function's first parameter."""
        first = next(iter(signature(self.function).parameters))
        kind = get_type_hints(self.function).get(first)
        if not (isinstance(kind, type) and is_dataclass(kind)):
            raise ConfigError(
                f"stage {self.name}: the parameter {first!r} of {self.function.__qualname__} is no dataclass",
                remedy="annotate it with a frozen dataclass that is imported at the top of its module",
            )
        return kind

    @property
    def about(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]


def stage(
    name: str,
    *,
    produces: str,
    inputs: Mapping[str, Input] | None = None,
    check: Check | None = None,
    revision: int = 1,
) -> Callable[[Function], Stage]:
    """Makes a function `(config, work) -> metrics` a stage.

    `check(config, inputs)` raises what can be known before long work; it is called with the inputs that exist: at plan
    time when all of them do, else right before the step.
    """
    if produces not in KINDS:
        raise ConfigError(f"stage {name}: unknown kind {produces!r}", remedy=f"one of: {', '.join(KINDS)}")

    def decorate(function: Function) -> Stage:
        return Stage(name, produces, dict(inputs or {}), function, check, revision)

    return decorate
