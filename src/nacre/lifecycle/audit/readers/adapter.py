"""A LoRA adapter over its base, read as the model that the two make: W + scale B A (Hu et al. 2022, section 4.1).

Names and settings are those of PEFT. Tensors that the adapter leaves alone are the base's own, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nacre.errors import CheckpointError
from nacre.kernel.adapters.config import LoraConfig
from nacre.lifecycle.audit.readers.files import CHUNK, shown
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tensors import Floats, TensorInfo, TensorSource

_PREFIX = "base_model.model."
_PARTS = (".lora_A.weight", ".lora_B.weight")
_REMEDY = "merge the adapter into its base, and audit the merged model"
_BESIDE = "audit its base: such an adapter stays beside the weights"


@dataclass(frozen=True)
class _Delta:
    """Names of A (R, in) and B (out, R), and the factor of B A; `transposed` where the base is (in, out)."""

    a: str
    b: str
    scale: float
    transposed: bool


class AdaptedSource:
    """A `TensorSource` of the base's names: adapted matrices in float32, replaced and untouched ones as they lie.

    Raises CheckpointError where a part of the adapter is no plain LoRA or fits no tensor of the base.
    """

    def __init__(self, base: TensorSource, adapter: TensorSource, config: Mapping[str, Any]) -> None:
        _refuse_others(config)
        self.base, self.adapter = base, adapter
        self._deltas: dict[str, _Delta] = {}
        self._replaced: dict[str, str] = {}
        for name in adapter.infos:
            self._place(name, config)
        self._infos = {name: self._info(name) for name in [*base.infos, *(set(self._replaced) - set(base.infos))]}

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        return self._infos

    def read(self, name: str, rows: slice | None = None) -> Floats:
        """As `TensorSource.read`."""
        if name in self._replaced:
            return self.adapter.read(self._replaced[name], rows)
        values = self.base.read(name, rows)
        if name not in self._deltas:
            return values
        delta = self._deltas[name]
        a, b = self.adapter.read(delta.a), self.adapter.read(delta.b)
        left, right = (a.T, b.T) if delta.transposed else (b, a)
        with np.errstate(all="ignore"):
            values += np.float32(delta.scale) * (left[rows] if rows is not None else left) @ right
        return values

    def blocks(self, name: str) -> Iterator[memoryview]:
        """As `TensorSource.blocks`; of an adapted matrix, the bytes of its float32 values."""
        if name in self._replaced:
            yield from self.adapter.blocks(self._replaced[name])
        elif name not in self._deltas:
            yield from self.base.blocks(name)
        else:
            raw = np.ascontiguousarray(self.read(name)).reshape(-1).view(np.uint8)
            for start in range(0, raw.size, CHUNK):
                yield raw[start : start + CHUNK].data

    def _place(self, name: str, config: Mapping[str, Any]) -> None:
        inner = name.removeprefix(_PREFIX)
        if ".lora_" not in inner:
            self._replaced[_base_name(inner.replace(".modules_to_save.default.", "."), self.base.infos) or inner] = name
            return
        module = next((inner.removesuffix(part) for part in _PARTS if inner.endswith(part)), None)
        if module is None:
            raise CheckpointError(say("{name} is no part of a plain LoRA", name=shown(name)), remedy=_REMEDY)
        if not inner.endswith(_PARTS[0]):
            if f"{_PREFIX}{module}{_PARTS[0]}" not in self.adapter.infos:
                raise CheckpointError(
                    say("the adapter of {name} has no lora_A", name=shown(module)), remedy="fetch it again"
                )
            return
        target = _base_name(f"{module}.weight", self.base.infos)
        if target is None:
            what = say("the base has no {name}, which the adapter changes", name=shown(module))
            raise CheckpointError(what, remedy="give its base")
        self._deltas[target] = self._delta(target, module, name, config)

    def _delta(self, target: str, module: str, a: str, config: Mapping[str, Any]) -> _Delta:
        b = a.removesuffix(_PARTS[0]) + _PARTS[1]
        if b not in self.adapter.infos:
            raise CheckpointError(
                say("the adapter of {name} has no lora_B", name=shown(module)), remedy="fetch it again"
            )
        shapes = self.adapter.infos[a].shape, self.adapter.infos[b].shape
        transposed = config.get("fan_in_fan_out") is True
        held = self.base.infos[target].shape
        expected = held[::-1] if transposed else held
        if len(shapes[0]) != 2 or len(shapes[1]) != 2 or expected != (shapes[1][0], shapes[0][1]):
            what = say(
                "the adapter of {name} has the shapes {a} and {b}, its base {held}",
                name=shown(module),
                a=str(shapes[0]),
                b=str(shapes[1]),
                held=str(held),
            )
            raise CheckpointError(what, remedy="give the base that the adapter was made for")
        if shapes[0][0] != shapes[1][1] or shapes[0][0] == 0:
            raise CheckpointError(
                say("the adapter of {name} has two ranks", name=shown(module)), remedy="fetch it again"
            )
        return _Delta(a, b, _scale(shapes[0][0], module, config), transposed)

    def _info(self, name: str) -> TensorInfo:
        if name in self._replaced:
            info = self.adapter.infos[self._replaced[name]]
            return TensorInfo(name, info.dtype, info.shape, info.n_bytes, info.file)
        info = self.base.infos[name]
        if name not in self._deltas:
            return info
        return TensorInfo(name, "F32", info.shape, 4 * int(np.prod(info.shape)), info.file)


def _base_name(name: str, known: Mapping[str, TensorInfo]) -> str | None:
    """The base's name of a tensor: the same, or the only one that differs by a prefix."""
    if name in known:
        return name
    close = [one for one in known if one.endswith(f".{name}") or name.endswith(f".{one}")]
    return close[0] if len(close) == 1 else None


def _refuse_others(config: Mapping[str, Any]) -> None:
    """Raises CheckpointError for what is no plain LoRA."""
    kind = str(config.get("peft_type", "LORA")).upper()
    if config.get("use_dora") or kind in ("DORA", "BIAS"):
        kind = "DoRA" if config.get("use_dora") else kind
        raise CheckpointError(say("the adapter is of the kind {kind}", kind=shown(kind)), remedy=_REMEDY)
    if kind != "LORA":
        raise CheckpointError(say("the adapter is of the kind {kind}", kind=shown(kind)), remedy=_BESIDE)


def _scale(rank: int, module: str, config: Mapping[str, Any]) -> float:
    alpha, patterns = config.get("lora_alpha", 8), config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise CheckpointError("its alpha_pattern is no table", remedy=_REMEDY)
    for pattern, value in patterns.items():  # as plain ends of names: a foreign expression could run for ever
        if module == pattern or module.endswith(f".{pattern}"):
            alpha = value
            break
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1e6:
        raise CheckpointError(say("its lora_alpha is {alpha}", alpha=shown(str(alpha))), remedy=_REMEDY)
    return LoraConfig(rank, float(alpha), 0.0, ("*",), rslora=config.get("use_rslora") is True).scale
