"""The templates that are shipped, the special tokens they are made of, and tokenizers extended by these."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers

from nacre.data.tokenizer import Tokenizer
from nacre.errors import ConfigError, closest

_FOLDER = Path(__file__).parent / "templates"

# The special tokens that each template spells. Llama 2's and Mistral's brackets are text there, or tokens that the
# tokenizer knows: both work.
CONTROLS: Mapping[str, tuple[str, ...]] = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "glm": ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    "llama2": (),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "mistral": (),
    "qwen2.5": ("<|im_start|>", "<|im_end|>"),
    "qwen3": ("<|im_start|>", "<|im_end|>"),
}
# Names for the same template: Qwen 2.5 is plain ChatML.
_FILE: Mapping[str, str] = {"qwen2.5": "chatml"}
# The roles that templates take from the tokenizer.
ROLES: Mapping[str, tuple[str, ...]] = {"llama2": ("bos", "eos"), "llama3": ("bos",), "mistral": ("bos", "eos")}


def check_name(name: str) -> None:
    """Raises ConfigError naming the closest unless a template of this name is shipped."""
    if name not in CONTROLS:
        raise ConfigError(f"no chat template is called {name!r}", remedy=closest(name, CONTROLS))


def source(name: str) -> str:
    """The Jinja source of a shipped template. ConfigError names the closest."""
    check_name(name)
    return (_FOLDER / f"{_FILE.get(name, name)}.jinja").read_text(encoding="utf-8")


def lacking(name: str, tokenizer: Tokenizer) -> list[str]:
    """The special tokens of a shipped template that the tokenizer has not, or has only as text.

    ConfigError where the template needs the tokenizer's own start and end and there are none.
    """
    absent = [role for role in ROLES.get(name, ()) if role not in tokenizer.roles]
    if absent:
        raise ConfigError(
            f"the template {name} begins and ends turns with the tokenizer's own tokens, and it has no "
            f"{' and no '.join(absent)}",
            remedy="name a template that brings its own: chatml",
        )
    return [token for token in CONTROLS[name] if tokenizer.id_of(token) not in tokenizer.special_ids]


def extended(tokenizer: Tokenizer, tokens: Sequence[str]) -> Tokenizer:
    """A copy of the tokenizer in which `tokens` are special; those it lacks get the ids after its last."""
    raw = tokenizers.Tokenizer.from_str(tokenizer.raw.to_str())
    raw.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in tokens])
    settings = {name: value for name, value in tokenizer.settings.items() if name != "added_tokens_decoder"}
    known = json.loads(json.dumps(settings))
    return Tokenizer(raw, tokenizer.roles, known)
