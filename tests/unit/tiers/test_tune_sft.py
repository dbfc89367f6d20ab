"""tune.sft: a base model learns to answer, the template's tokens are added and trained, encoder-decoders as well."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_kit import assistant, tokenizer, user
from objective_kit import kernel as kit_kernel
from objective_kit import tokenizer as kit_tokenizer

from nacre.data.chat.template import ChatTemplate
from nacre.data.tokenizer import Tokenizer
from nacre.engine.native import Native
from nacre.engine.protocol import Message, Sampling
from nacre.errors import CheckpointError, ConfigError, DataError
from nacre.kernel import hf
from nacre.kernel.adapters.config import AdapterConfig, LoraConfig
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.recipe.catalogue import find
from nacre.recipe.stage import Work
from nacre.tiers.tune.conversation import TuneSftConfig, check_sft
from nacre.train.config import TrainConfig
from nacre.train.objectives.config_align import SftConfig
from nacre.train.objectives.sft import SftSeq2Seq

TALKS = [
    {"messages": [user("hello"), assistant("Hello there.")]},
    {"messages": [user("你好"), assistant("你好，我在。")]},
    {"messages": [user("what is your name?"), assistant("Nacre.")]},
    {"messages": [user("hello"), assistant("Hello there."), user("thanks"), assistant("Bye.")]},
]


def base(folder: Path, spare: int = 0) -> Path:
    vocabulary = tokenizer()
    sizes = {"hidden_size": 48, "heads": 4, "layers": 2, "max_positions": 128, "vocab_size": len(vocabulary) + spare}
    ids = {"bos_id": vocabulary.bos_id, "eos_id": vocabulary.eos_id, "pad_id": vocabulary.pad_id}
    config = preset("llama2", **sizes | ids, head="lm")
    hf.save(Kernel(config, torch.Generator().manual_seed(0)), folder)
    vocabulary.save(folder)
    return folder


def data(folder: Path, rows: list[dict[str, Any]] = TALKS) -> Path:
    folder.mkdir(parents=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(lines, encoding="utf-8")
    return folder


def tuned(place: Path, model: Path, rows: Path, config: TuneSftConfig) -> tuple[Path, dict[str, Any]]:
    out = place / "out"
    out.mkdir(parents=True)
    check_sft(config, {"model": model, "data": rows})
    work = Work({"model": model, "data": rows}, out, place / "scratch")
    return out, dict(find("tune.sft")(config, work))


def quick(steps: int = 60, **objective: Any) -> dict[str, Any]:
    return {
        "train": TrainConfig(max_steps=steps, batch_size=4, lr=1e-2, warmup=0, epochs=None),
        "objective": SftConfig(**{"context": 96} | objective),
    }


def test_trap_48_added_tokens_are_trained_saved_and_reloaded_and_the_model_answers(tmp_path: Path) -> None:
    model = base(tmp_path / "base")
    config = TuneSftConfig(template="chatml", add_tokens=True, **quick())
    out, metrics = tuned(tmp_path / "run", model, data(tmp_path / "data"), config)
    assert metrics["added_tokens"] == 2
    assert 0 < metrics["trained_share"] < 1
    saved = Tokenizer.load(out)
    ids = [saved.id_of(token) for token in ("<|im_start|>", "<|im_end|>")]
    kernel = hf.load(out)
    assert kernel.config.vocab_size == len(saved) == len(tokenizer()) + 2
    assert ids == [len(saved) - 2, len(saved) - 1]
    assert set(ids) <= saved.special_ids
    assert kernel.embed.tokens is not None
    new, old = kernel.embed.tokens.weight[-2:], hf.load(model).embed.tokens.weight  # type: ignore[union-attr]
    assert (new - old.mean(0)).abs().max() > 1e-3, "the new rows were not trained"
    assert not torch.allclose(new[0], new[1])
    engine = Native(out)
    assert engine.capabilities.chat
    asked = [(Message("user", text),) for text in ("hello", "你好", "what is your name?")]
    answers = engine.generate(asked, Sampling(max_tokens=24, temperature=0))
    assert [one.text.strip() for one in answers] == ["Hello there.", "你好，我在。", "Nacre."]
    assert {one.stopped for one in answers} == {"end"}


def test_what_is_written_is_read_by_transformers_with_the_same_prompt(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = TuneSftConfig(template="chatml", add_tokens=True, **quick(2))
    out, _ = tuned(tmp_path / "run", base(tmp_path / "base"), data(tmp_path / "data"), config)
    theirs, kernel = AutoTokenizer.from_pretrained(out), hf.load(out)
    prompt = theirs.apply_chat_template([user("你好 there")], add_generation_prompt=True, return_dict=False)
    engine = Native(out)
    assert engine.prompt_ids((Message("user", "你好 there"),)) in (prompt, [theirs.bos_token_id, *prompt])
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()(ids).logits
        assert torch.allclose(kernel.lm_logits(kernel(ids).hidden), expected, atol=1e-4)
    assert theirs.convert_tokens_to_ids("<|im_end|>") in json.loads((out / "config.json").read_text())["eos_token_id"]


def test_rows_to_spare_are_used_before_the_kernel_grows(tmp_path: Path) -> None:
    model, rows = base(tmp_path / "base", spare=10), data(tmp_path / "data")
    config = TuneSftConfig(template="chatml", add_tokens=True, **quick(1))
    out, metrics = tuned(tmp_path / "run", model, rows, config)
    assert metrics["added_tokens"] == 2
    assert hf.load(out).config.vocab_size == len(tokenizer()) + 10
    assert Tokenizer.load(out).id_of("<|im_end|>") == len(tokenizer()) + 1
    with pytest.raises(ConfigError, match="adapters would leave untrained"):
        tuned(tmp_path / "lora", model, rows, TuneSftConfig(template="chatml", add_tokens=True, lora=LoraConfig()))


def test_the_same_bytes_again(tmp_path: Path) -> None:
    model, rows = base(tmp_path / "base"), data(tmp_path / "data")
    config = TuneSftConfig(template="chatml", add_tokens=True, **quick(3))
    once, again = (tuned(tmp_path / name, model, rows, config)[0] for name in "ab")
    for file in sorted(path.name for path in once.iterdir()):
        assert (once / file).read_bytes() == (again / file).read_bytes(), file


def test_an_encoder_decoder_reads_questions_and_writes_answers(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    hf.save(kit_kernel("t5", decoder_start_id=kit_tokenizer("t5").pad_id, eos_id=kit_tokenizer("t5").eos_id), folder)
    kit_tokenizer("t5").save(folder)
    rows = data(tmp_path / "data", TALKS)
    out, _ = tuned(tmp_path / "run", folder, rows, TuneSftConfig(**quick(2)))
    told = json.loads((out / "training.json").read_text())
    assert told["examples"] == 3
    assert told["rows"]["dropped"] == {"conversations of several turns or with tools, which need a template": 1}


def test_an_encoder_decoder_with_a_template_is_asked_as_it_was_taught(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    hf.save(kit_kernel("t5", decoder_start_id=kit_tokenizer("t5").pad_id, eos_id=kit_tokenizer("t5").eos_id), folder)
    kit_tokenizer("t5").save(folder)
    config = TuneSftConfig(template="chatml", add_tokens=True, **quick(2))
    out, metrics = tuned(tmp_path / "run", folder, data(tmp_path / "data"), config)
    assert metrics["examples"] == 4
    template = ChatTemplate.open(out)
    example = SftSeq2Seq(template.tokenizer, template, config.objective).encode(TALKS[0])
    assert example is not None
    assert Native(out).prompt_ids((Message("user", "hello"),)) == example.source.tolist()


def test_tokens_that_adapters_would_leave_untrained_are_refused(tmp_path: Path) -> None:
    model, rows = base(tmp_path / "base"), data(tmp_path / "data")
    config = TuneSftConfig(template="chatml", add_tokens=True, lora=LoraConfig(), **quick(1))
    with pytest.raises(ConfigError, match="adapters would leave untrained"):
        tuned(tmp_path / "run", model, rows, config)
    out, _ = tuned(tmp_path / "text", model, rows, TuneSftConfig(template="llama2", lora=LoraConfig(), **quick(1)))
    assert (out / "adapter").is_dir()


@pytest.mark.parametrize("method", ["lora", "bottleneck"])
def test_tokens_beside_an_adapter_are_trained_where_their_tables_are(method: Any, tmp_path: Path) -> None:
    """The remedy that the refusal names: the tables in full, and the model learns to end its answers."""
    model, rows = base(tmp_path / "base"), data(tmp_path / "data")
    settings: dict[str, Any] = {"rank": 8, "targets": ("attention.*", "ffn.*")} if method == "lora" else {"width": 24}
    half = AdapterConfig(method, **settings, train=("embed.tokens",))
    with pytest.raises(ConfigError, match="lm_head adapters would leave untrained") as caught:
        tuned(tmp_path / "half", model, rows, TuneSftConfig(template="chatml", add_tokens=True, adapter=half))
    assert "{train: [embed.tokens, lm_head]}" in caught.value.remedy
    whole = replace(half, train=("embed.tokens", "lm_head"))
    config = TuneSftConfig(template="chatml", add_tokens=True, adapter=whole, **quick())
    out, metrics = tuned(tmp_path / "run", model, rows, config)
    assert metrics["added_tokens"] == 2
    kernel, saved = hf.load(out), Tokenizer.load(out)
    end = saved.id_of("<|im_end|>")
    assert isinstance(kernel.config.eos_id, tuple)
    assert kernel.config.eos_id[0] == end
    for name in ("embed.tokens.weight", "lm_head.weight"):
        old, new = hf.load(model).get_parameter(name), kernel.get_parameter(name)
        assert (new[-2:] - old.mean(0)).abs().max() > 1e-3, name
    [answer] = Native(out).generate([(Message("user", "hello"),)], Sampling(max_tokens=24, temperature=0))
    assert (answer.text.strip(), answer.stopped) == ("Hello there.", "end")


def test_what_cannot_be_taught_is_told_at_plan_time(tmp_path: Path) -> None:
    model, rows = base(tmp_path / "base"), data(tmp_path / "data")
    inputs = {"model": model, "data": rows}
    with pytest.raises(ConfigError, match="no chat template"):
        check_sft(TuneSftConfig(), inputs)
    with pytest.raises(ConfigError, match=r"lacks <\|im_start\|>, <\|im_end\|>") as caught:
        check_sft(TuneSftConfig(template="chatml"), inputs)
    assert "add_tokens: true" in caught.value.remedy
    with pytest.raises(ConfigError, match="did you mean 'chatml'"):
        TuneSftConfig(template="chatlm")
    with pytest.raises(ConfigError, match="none is named"):
        TuneSftConfig(add_tokens=True)
    wrong = data(tmp_path / "pairs", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(DataError, match="preference pairs") as told:
        check_sft(TuneSftConfig(template="llama2"), {"model": model, "data": wrong})
    assert "tune.preference" in told.value.remedy


def test_a_model_that_cannot_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    hf.save(kit_kernel("bert", "none"), folder)
    tokenizer().save(folder)
    config = TuneSftConfig(template="llama2", **quick(1))
    with pytest.raises(CheckpointError, match="cannot write text"):
        tuned(tmp_path / "run", folder, data(tmp_path / "data"), config)


def test_trap_44_a_run_that_was_killed_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nacre.train import loop

    model, rows = base(tmp_path / "base"), data(tmp_path / "data")
    config = TuneSftConfig(template="chatml", add_tokens=True, **quick(6))
    whole, _ = tuned(tmp_path / "whole", model, rows, config)
    after = loop.Trainer._after_step

    def dies(self: Any) -> None:
        after(self)
        if self.step == 3:
            self._save()
            raise KeyboardInterrupt

    out = tmp_path / "cut" / "out"
    out.mkdir(parents=True)
    work = Work({"model": model, "data": rows}, out, tmp_path / "cut" / "scratch")
    monkeypatch.setattr(loop.Trainer, "_after_step", dies)
    with pytest.raises(KeyboardInterrupt):
        find("tune.sft")(config, work)
    assert not (out / "config.json").is_file()
    monkeypatch.setattr(loop.Trainer, "_after_step", after)
    find("tune.sft")(config, work)
    for file in sorted(path.name for path in whole.iterdir()):
        assert (whole / file).read_bytes() == (out / file).read_bytes(), file
