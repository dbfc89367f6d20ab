"""`config.json` of `transformers` to KernelConfig and back. Free of torch.

What a reader does not know is refused where it would change the model and reported where it would not. What a writer
cannot say is refused: every written file is read again, and must give the same config.
"""

from __future__ import annotations

import dataclasses
import logging

from nacre.errors import CheckpointError, ConfigError, closest
from nacre.kernel.config import TRAINING_ONLY, KernelConfig
from nacre.kernel.families import FAMILIES
from nacre.kernel.hf_dialects import ASSUMED, DIALECTS, OTHER_MODEL, Dialect, Json
from nacre.kernel.presets import PRESETS

_log = logging.getLogger(__name__)

# Keys of every config that say nothing about what the model computes.
_EVERYWHERE = frozenset(
    {
        "architectures", "model_type", "dtype", "torch_dtype", "transformers_version", "_name_or_path",
        "name_or_path", "use_cache", "nacre", "id2label", "label2id", "num_labels", "problem_type",
        "output_hidden_states", "output_attentions", "return_dict", "tokenizer_class", "task_specific_params",
        "finetuning_task", "auto_map", "tie_encoder_decoder", "is_encoder_decoder", "_attn_implementation",
        "attn_implementation", "prefix", "sep_token_id", "decoder_start_token_id", "torchscript",
        "pruned_heads",
    }
)  # fmt: skip
# Parts of keys that announce a computation which a kernel does not have.
_FOREIGN = (
    "softcap",
    "expert",
    "moe",
    "quantization",
    "alibi",
    "parallel_attn",
    "residual_multiplier",
    "logits_scaling",
)


def read_config(given: Json) -> KernelConfig:
    """The kernel that a parsed `config.json` describes.

    Raises CheckpointError naming the key and value that no kernel can express, ConfigError where numbers contradict.
    """
    name = str(given.get("model_type"))
    if name not in DIALECTS:
        what = f"config.json: model_type {name!r} is not a family that a kernel can express"
        raise CheckpointError(what, remedy=closest(name, DIALECTS))
    dialect = DIALECTS[name]
    _refuse_foreign(given, dialect)
    fields: Json = dict(PRESETS[dialect.base]) | {"logit_scale": 1.0, "pooler": None, "labels": (), "task_types": 0}
    for key in dialect.keys:
        fields[key.ours] = given.get(key.theirs, key.default)
    fields["head_dim"] = fields.get("head_dim") if "head_dim" in {key.ours for key in dialect.keys} else None
    dialect.read(given, fields)
    fields |= _read_head(given, name)
    fields |= given.get("nacre", {}).get("training", {})
    _check_numbers(fields)
    try:
        return KernelConfig.from_dict(fields)
    except ConfigError as error:
        raise CheckpointError(f"config.json: {error.message}", remedy=error.remedy) from error


def write_config(config: KernelConfig) -> Json:
    """The `config.json` of a kernel, with the keys that the class of `transformers` needs.

    Choices that matter for training only, and a head that `transformers` has no class for, stand under the key `nacre`.
    Raises CheckpointError listing what the family's format cannot say.
    """
    dialect, family = DIALECTS[config.family], FAMILIES[config.family]
    held = config.head_in_checkpoint
    out: Json = {"architectures": [family.classes[config.head if held else "none"]], "model_type": config.family}
    for key in dialect.keys:
        value = getattr(config, key.ours)
        out[key.theirs] = list(value) if isinstance(value, tuple) else value
    out |= {key: value for key, value in dialect.fixed.items() if key not in ASSUMED}
    dialect.write(config, out)
    if config.decoder_start_id is not None:
        out["decoder_start_token_id"] = config.decoder_start_id
    if config.labels and held:
        out["id2label"] = {str(i): label for i, label in enumerate(config.labels)}
        out["label2id"] = {label: i for i, label in enumerate(config.labels)}
    extra = _beside(config, held)
    if extra:
        out["nacre"] = extra
    return _checked(config, out)


def _check_numbers(fields: Json) -> None:
    """A number written as a text, say: refused by name before anything computes with it."""
    for field in dataclasses.fields(KernelConfig):
        value, numeric = fields.get(field.name), str(field.type).startswith(("int", "float"))
        # Several tokens may end a text (Llama 3 has a list of them); all other numbers stand alone.
        values = value if isinstance(value, list) and value and "tuple" in str(field.type) else [value]
        if numeric and value is not None and any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
            what = f"config.json: the value of {field.name} is {str(value)[:80]!r}, no number"
            raise CheckpointError(what, remedy="correct config.json, or fetch the checkpoint again")


def _beside(config: KernelConfig, held: bool) -> Json:
    """What stands under the key `nacre`: a head kept in its own file, and a pooler that only fills a place."""
    extra: Json = {}
    if not held:
        extra |= {"head": config.head, "pooling": config.pooling, "labels": list(config.labels)}
    if FAMILIES[config.family].pooler and (config.head == "none" or not held) and not config.pooler:
        extra["pooler"] = "placeholder"
    return extra


def _checked(config: KernelConfig, out: Json) -> Json:
    """Reads what was written; keeps differences that matter for training only beside it, refuses the others."""
    again = read_config(out)
    training, lost = {}, []
    for f in dataclasses.fields(KernelConfig):
        mine, theirs = getattr(config, f.name), getattr(again, f.name)
        if mine == theirs or (f.name == "pooling" and config.head != "classify"):
            continue
        if f.name in TRAINING_ONLY:
            training[f.name] = mine
        else:
            lost.append(f"{f.name}={mine!r} (it would be read as {theirs!r})")
    if lost:
        what = f"the checkpoint format of {config.family!r} cannot express {'; '.join(lost)}"
        raise CheckpointError(what, remedy="change these choices, or choose the family whose preset has them")
    if training:
        out.setdefault("nacre", {})["training"] = training
    return out


def _refuse_foreign(given: Json, dialect: Dialect) -> None:
    for key, value in dialect.fixed.items():
        if key in given and given[key] != value:
            what = f"config.json: {key} is {given[key]!r}; a kernel of this family has {value!r} only"
            raise CheckpointError(what, remedy=OTHER_MODEL)
    known = _EVERYWHERE | {key.theirs for key in dialect.keys} | set(dialect.fixed) | set(dialect.known)
    unknown = {key: value for key, value in given.items() if key not in known and value not in (None, False)}
    for key, value in unknown.items():
        if any(word in key for word in _FOREIGN):
            what = f"config.json: {key} = {str(value)[:80]!r} changes what the model computes, and no kernel has it"
            raise CheckpointError(what, remedy=OTHER_MODEL)
    if unknown:
        _log.warning("config.json: keys that a kernel does not use: %s", ", ".join(sorted(unknown)))


def _read_head(given: Json, name: str) -> Json:
    """Head, labels, pooling and pooler, from `architectures` and from what stands under `nacre`."""
    family, extra = FAMILIES[name], given.get("nacre", {})
    heads = {cls: head for head, cls in family.classes.items()}
    declared = (given.get("architectures") or [None])[0]
    if declared not in heads:
        what = f"config.json: architectures names {declared!r}, not a class that a {name} kernel can be"
        raise CheckpointError(what, remedy=closest(str(declared), heads))
    head = extra.get("head", heads[declared])
    fields: Json = {"head": head, "pooling": family.classify_pooling}
    if head == "none" and family.pooler:
        fields["pooler"] = extra.get("pooler") != "placeholder"
    if head in ("classify", "tag"):
        count = given.get("num_labels", 2)
        names = given.get("id2label") or {str(i): f"LABEL_{i}" for i in range(count)}
        fields["labels"] = tuple(str(names[key]) for key in sorted(names, key=int))
    fields |= {key: extra[key] for key in ("pooling", "labels") if key in extra}
    return fields
