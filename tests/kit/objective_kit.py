"""Small tokenizers and kernels for tests of objectives, made once per process."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import torch

from nacre.data.tokenizer import Tokenizer, TokenizerConfig, train
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset

ENGLISH = [
    "The parcel is late again. Nobody answers the phone! What should we do now?",
    "My card was refused at the shop. I had to leave the groceries behind.",
    "How do I change my address? I moved last week.",
    "Please send the invoice again. The first copy never arrived, and the second was unreadable.",
    "Thanks for the quick refund! It arrived this morning. I will order from you again.",
]
CHINESE = [
    "包裹还没有到，请帮我查一下物流信息。谢谢你们！",
    "我想修改收货地址。上个星期我们搬家了，新的电话号码也请一起更新。",
    "银行卡在商店里刷不了，怎么办？客服一直没有回答。",
    "发票的抬头写错了，请重新开一张。最好今天就能寄出来。",
]
TEXTS = [*ENGLISH, *CHINESE]

_TOKENIZERS = {
    "bert": TokenizerConfig(algorithm="wordpiece", vocab_size=320, style="bert", lowercase=True),
    "gpt": TokenizerConfig(algorithm="bpe", vocab_size=420, style="gpt"),
    "llama": TokenizerConfig(algorithm="bpe", vocab_size=420, style="llama"),
    "t5": TokenizerConfig(algorithm="unigram", vocab_size=640, style="t5"),
}
_PRESETS = {"bert": "bert", "gpt": "gpt2", "llama": "llama2", "t5": "t5"}


@cache
def tokenizer(style: str) -> Tokenizer:
    """A tokenizer of a few hundred tokens, trained on TEXTS."""
    return train(TEXTS * 3, _TOKENIZERS[style], Path(tempfile.mkdtemp(prefix="nacre-kit-")))


def kernel(style: str, head: str | None = None, **changes: object) -> Kernel:
    """A kernel of 2 layers and width 32 for the tokenizer of that style, in evaluation mode, always the same."""
    sizes: dict[str, object] = {
        "vocab_size": len(tokenizer(style)),
        "hidden_size": 32,
        "layers": 2,
        "heads": 2,
        "ffn_size": 64,
        "max_positions": 128,
        **({"head_dim": 16} if style == "t5" else {}),
        **({"head": head} if head else {}),
        **changes,
    }
    return Kernel(preset(_PRESETS[style], **sizes), torch.Generator().manual_seed(0)).eval()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
