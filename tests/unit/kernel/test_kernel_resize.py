"""More tokens for a kernel: old rows keep their bits, new ones begin at the mean, ties hold, files are read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pico import pico, tokens

from nacre.errors import ConfigError
from nacre.kernel import hf
from nacre.kernel.resize import grow


@pytest.mark.parametrize("name", ["gpt2", "llama2", "qwen2", "t5", "bert", "roberta"])
def test_trap_48_old_logits_stay_and_new_rows_are_the_mean(name: str, tmp_path: Path) -> None:
    head = "mlm" if name in ("bert", "roberta") else "lm"
    kernel = pico(name, head=head)
    ids = tokens(2, 7)
    decoder = {"decoder_ids": ids} if name == "t5" else {}
    with torch.no_grad():
        before = kernel.lm_logits(kernel(ids, **decoder).hidden)
        assert grow(kernel, 101) == 4
        after = kernel.lm_logits(kernel(ids, **decoder).hidden)
    assert torch.equal(after[..., :97], before) or torch.allclose(after[..., :97], before, atol=1e-6)
    # A new token is as likely as an average one: its logit is the mean of the old.
    assert torch.allclose(after[..., 97:], before.mean(-1, keepdim=True).expand(-1, -1, 4), atol=1e-4)
    hf.save(kernel, tmp_path)
    again = hf.load(tmp_path)
    assert again.config.vocab_size == 101
    with torch.no_grad():
        assert torch.allclose(again.lm_logits(again(ids, **decoder).hidden), after, atol=1e-6)
    trained = [name for name, parameter in kernel.named_parameters() if parameter.requires_grad]
    assert "embed.tokens.weight" in trained


def test_a_kernel_does_not_shrink() -> None:
    kernel = pico("gpt2")
    assert grow(kernel, 97) == 0
    with pytest.raises(ConfigError, match="cannot shrink"):
        grow(kernel, 96)


def test_several_tokens_that_end_a_text_are_written_and_read(tmp_path: Path) -> None:
    kernel = pico("llama2", head="lm")
    kernel.config = kernel.config.replace(eos_id=(7, 2))
    hf.save(kernel, tmp_path)
    assert hf.load(tmp_path).config.eos_id == (7, 2)
