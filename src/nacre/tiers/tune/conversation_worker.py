"""The work behind `tune.sft`. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nacre.data.chat.template import ChatTemplate
from nacre.data.tokenizer import Tokenizer
from nacre.errors import CheckpointError, ConfigError
from nacre.kernel.adapters.config import AdapterConfig, chosen
from nacre.kernel.adapters.places import full_parameters
from nacre.kernel.model import Kernel
from nacre.kernel.resize import grow
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import Fit, end_answers, fit, keep_words, load_kernel, load_tokenizer, rows_of
from nacre.tiers.tune.conversation import TuneSftConfig
from nacre.tiers.tune.worker import adapt, robust
from nacre.train.objectives.sft import TAUGHT, TOKENS, Sft, SftSeq2Seq


def tune_sft(config: TuneSftConfig, work: Work) -> Mapping[str, Scalar]:
    """The model of the step, taught the answers of its data; the template is written beside its tokenizer."""
    kernel = load_kernel(work.inputs["model"], work)
    if kernel.config.head != "lm":
        raise CheckpointError(
            f"{work.inputs['model']} has the head {kernel.config.head!r} and cannot write text",
            remedy="give a decoder or encoder-decoder with its language-model head",
        )
    template = _template(config, work, kernel)
    tokenizer = load_tokenizer(work) if template is None else template.tokenizer
    added = _fitted_to(kernel, tokenizer, config, work)
    if kernel.config.layout == "encoder-decoder":
        objective: Sft | SftSeq2Seq = SftSeq2Seq(tokenizer, template, config.objective)
    else:
        assert template is not None
        objective = Sft(template, config.objective)
    adapt(kernel, chosen(config.lora, config.adapter), work)
    how = Fit(config.train, limit=config.limit)
    end_answers(kernel, template)
    metrics = fit(kernel, robust(objective, config.robust), rows_of(work.inputs["data"], how.limit), how, work)
    source = work.inputs.get("tokenizer", work.inputs["model"])
    keep_words(tokenizer, template, work.out, None if added else source)
    share = objective.noted[TAUGHT] / max(1, objective.noted[TOKENS])
    return metrics | {"trained_share": round(share, 4), "added_tokens": added}


def _template(config: TuneSftConfig, work: Work, kernel: Kernel) -> ChatTemplate | None:
    """The template of the step; None for an encoder-decoder that is given none."""
    folder: Path = work.inputs.get("tokenizer", work.inputs["model"])
    if config.template is None and kernel.config.layout == "encoder-decoder":
        return ChatTemplate.find(folder, load_tokenizer(work))
    return ChatTemplate.open(folder, config.template, add_tokens=config.add_tokens)


def _fitted_to(kernel: Kernel, tokenizer: Tokenizer, config: TuneSftConfig, work: Work) -> int:
    """Rows for tokens that the kernel has none for; how many tokens the template brought."""
    added = len(tokenizer) - len(load_tokenizer(work))
    adapter = chosen(config.lora, config.adapter)
    if added and adapter is not None:
        _check_rows_trained(kernel, adapter, f"the template {config.template} adds {added} tokens")
    if added and len(tokenizer) > kernel.config.vocab_size:  # some kernels have rows to spare
        grow(kernel, len(tokenizer))
    return added


def _check_rows_trained(kernel: Kernel, adapter: AdapterConfig, what: str) -> None:
    """Raises ConfigError where rows of new tokens, in embeddings or an own output matrix, stay untrained."""
    tables = [name for name, _ in kernel.named_parameters() if name in ("embed.tokens.weight", "lm_head.weight")]
    trained = full_parameters(kernel, adapter.train)
    if any(name not in trained for name in tables):
        wanted = ", ".join(name.removesuffix(".weight") for name in tables)
        raise ConfigError(
            f"{what}, whose rows in {wanted} adapters would leave untrained",
            remedy=f"train them beside the adapter: {{train: [{wanted}]}}; tune all weights; or name a template whose "
            "tokens the tokenizer has",
        )
