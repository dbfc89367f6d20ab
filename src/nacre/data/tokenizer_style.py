"""Special tokens of the common families: which exist, which id each has, and how they frame a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

StyleName = Literal["bert", "roberta", "gpt", "llama", "t5"]

# Roles that a token can play; the names are those of `special_tokens_map.json`, without `_token`.
ROLES = ("pad", "unk", "bos", "eos", "cls", "sep", "mask")


@dataclass(frozen=True)
class Style:
    """A family's special tokens.

    tokens: in the order of their ids, from 0.
    roles: role -> token; several roles may share one token (GPT's end of text begins texts as well).
    single, pair: templates in the notation of `tokenizers` (`$A:0` is the first text with token type 0);
        None adds nothing.
    uses_token_types: the family's models read `token_type_ids`.
    """

    tokens: Sequence[str]
    roles: Mapping[str, str]
    single: str | None
    pair: str | None
    uses_token_types: bool = False


STYLES: dict[StyleName, Style] = {
    "bert": Style(
        tokens=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        roles={"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        uses_token_types=True,
    ),
    "roberta": Style(
        tokens=("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
        roles={
            "bos": "<s>",
            "cls": "<s>",
            "pad": "<pad>",
            "eos": "</s>",
            "sep": "</s>",
            "unk": "<unk>",
            "mask": "<mask>",
        },
        single="<s>:0 $A:0 </s>:0",
        pair="<s>:0 $A:0 </s>:0 </s>:0 $B:0 </s>:0",
    ),
    # Padding has a token of its own: where it shares the end of text, masking padding also hides the end (trap 10).
    "gpt": Style(
        tokens=("<|endoftext|>", "<|pad|>"),
        roles={"bos": "<|endoftext|>", "eos": "<|endoftext|>", "pad": "<|pad|>"},
        single=None,
        pair=None,
    ),
    "llama": Style(
        tokens=("<unk>", "<s>", "</s>", "<pad>"),
        roles={"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": "<pad>"},
        single="<s>:0 $A:0",
        pair="<s>:0 $A:0 $B:1",
    ),
    "t5": Style(
        tokens=("<pad>", "</s>", "<unk>"),
        roles={"pad": "<pad>", "eos": "</s>", "unk": "<unk>"},
        single="$A:0 </s>:0",
        pair="$A:0 </s>:0 $B:0 </s>:0",
    ),
}


def sentinels(count: int) -> list[str]:
    """T5's `<extra_id_i>` in the order of their ids: the highest id is sentinel 0, as in the published vocabularies."""
    return [f"<extra_id_{index}>" for index in reversed(range(count))]


# Foreign folders often name no roles; these spellings are unambiguous enough to read them from the vocabulary.
WELL_KNOWN: dict[str, tuple[str, ...]] = {
    "pad": ("[PAD]", "<pad>", "<|pad|>"),
    "unk": ("[UNK]", "<unk>"),
    "bos": ("<s>", "<|begin_of_text|>", "<|startoftext|>"),
    "eos": ("</s>", "<|endoftext|>", "<|end_of_text|>"),
    "cls": ("[CLS]", "<cls>"),
    "sep": ("[SEP]", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
}
