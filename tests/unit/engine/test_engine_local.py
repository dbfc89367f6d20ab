"""Engines that run here: parity with the kernel and with `transformers`, chat templates, and what they refuse."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_folders import foreign_folder, native_folder

from nacre.data.tokenizer import Tokenizer
from nacre.engine.auto_model import AutoModelEngine
from nacre.engine.local import Pieces, name_of, pooling_of
from nacre.engine.looped import Looped, over_loopback
from nacre.engine.native import Native
from nacre.engine.opening import open_bare
from nacre.engine.protocol import Message, Sampling, Unsupported
from nacre.engine.room import EngineRoom
from nacre.errors import CheckpointError
from nacre.kernel import hf
from nacre.kernel.generate import score

TEXTS = ["where is my parcel", "我的包裹在哪里？", "a longer question about refunds, cards and 发货", "x"]


def test_scores_are_those_of_the_kernel(tmp_path: Path) -> None:
    engine = Native(native_folder(tmp_path, "decoder"))
    found = engine.score([("where is", " my parcel 我的")])[0]
    ids, offsets = engine.tokenizer.spans("where is my parcel 我的")
    begin = [engine.tokenizer.bos_id or 0]
    values = score(engine.kernel, [[*begin, *ids]])[0]
    own = [value for value, (_, end) in zip(values, offsets, strict=True) if end > len("where is")]
    assert found.tokens == len(own)
    assert found.log_probability == pytest.approx(sum(own), abs=1e-6)


def test_token_scores_add_up_to_the_text(tmp_path: Path) -> None:
    engine = Native(native_folder(tmp_path, "decoder"))
    found = engine.token_scores("where 我的")
    whole = engine.score([("", "where 我的")])[0]
    assert sum(one.log_probability or math.nan for one in found) == pytest.approx(whole.log_probability, abs=1e-5)
    assert len(found) == whole.tokens


def test_greedy_answers_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = native_folder(tmp_path, "decoder")
    engine = Native(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    for text in TEXTS:
        ids = engine.prompt_ids(text)
        with torch.inference_mode():
            expected = theirs.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False, pad_token_id=0)[0]
        kept = [token for token in expected[len(ids) :].tolist() if token != engine.tokenizer.eos_id]
        assert engine.generate([text], Sampling(max_tokens=8))[0].text == engine.tokenizer.decode(kept)


def sentence_encoder(folder: Path, pooling: str = "mean_tokens", *, normalise: bool = True) -> Path:
    native_folder(folder, "encoder")
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalise else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    listed = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in zip(kinds, paths)]  # noqa: B905
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40}))
    return folder


def test_sentence_vectors_are_means_of_length_one_within_the_told_context(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = sentence_encoder(tmp_path)
    engine = Native(folder)
    assert engine.capabilities.context == 40
    theirs = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [*TEXTS, "long 长 " * 60]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=40, return_tensors="pt")
    with torch.inference_mode():
        hidden = theirs(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    found = engine.embed(texts)
    np.testing.assert_allclose(found.vectors, expected.numpy(), atol=1e-5)
    assert found.cut == (4,)


def test_poolings_that_are_not_known_are_refused(tmp_path: Path) -> None:
    assert pooling_of(sentence_encoder(tmp_path / "a", "cls_token", normalise=False)) == ("cls", False)
    with pytest.raises(CheckpointError, match="max_tokens"):
        pooling_of(sentence_encoder(tmp_path / "b", "max_tokens"))
    folder = sentence_encoder(tmp_path / "c")
    (folder / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense", "path": "x"}]))
    with pytest.raises(CheckpointError, match="Dense"):
        pooling_of(folder)


def test_the_identity_follows_the_content(tmp_path: Path) -> None:
    one, same, other = (
        Native(native_folder(tmp_path / name, "encoder", seed=seed)) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one.identity == same.identity != other.identity
    assert one.name == "a"


def test_names_come_from_the_record_first(tmp_path: Path) -> None:
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert", "_name_or_path": "someone/the-model-it-was-made-from"}')
    assert name_of(folder, "bert 6 x 384") == "bert 6 x 384"
    (folder / "lineage.json").write_text('{"name": "intents/tune", "version": 7}')
    assert name_of(folder, "bert 6 x 384") == "intents/tune@7"


def test_a_kept_checkpoint_is_named_by_what_it_is_and_served_under_an_id(tmp_path: Path) -> None:
    folder = native_folder(tmp_path / "engine", "decoder")
    with Native(folder) as here, over_loopback(Native(folder)) as there:
        assert isinstance(there, Looped)
        assert here.name == hf.load_config(folder).title
        assert there.settings.model == here.name.replace(" x ", "x").replace(" ", "-")
        served = {one.generate(["where"], Sampling(max_tokens=2))[0].model for one in (here, there)}
        assert served == {here.name}  # the same engine, whichever way it is asked
        assert there._model("another-model") == "another-model"


def test_a_foreign_checkpoint_is_named_alike(tmp_path: Path) -> None:
    with AutoModelEngine(foreign_folder(tmp_path / "engine", "encoder")) as engine:
        assert re.fullmatch(r"distilbert \d+ x \d+", engine.name)


def test_a_tokenizer_larger_than_its_model_is_refused(tmp_path: Path) -> None:
    folder = native_folder(tmp_path / "a", "decoder")
    small = native_folder(tmp_path / "b", "encoder")
    for file in ("config.json", "model.safetensors"):
        (folder / file).write_bytes((small / file).read_bytes())
    tokenizer = Tokenizer.load(folder)
    if len(tokenizer) <= hf.load_config(folder).vocab_size:
        pytest.skip("the tokenizers happen to fit")
    with pytest.raises(CheckpointError, match="tokens"):
        Native(folder)


# --- transformers


def test_a_broken_checkpoint_is_not_handed_to_transformers(tmp_path: Path) -> None:
    folder = native_folder(tmp_path, "decoder")
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="safetensors"):
        open_bare(folder, EngineRoom())


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    folder = foreign_folder(tmp_path / "model", "decoder")
    trace = tmp_path / "was_here"
    (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass C: ...\n")
    plain = json.loads((folder / "config.json").read_text())
    plain |= {"model_type": "unheard_of", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C"}}
    (folder / "config.json").write_text(json.dumps(plain))
    with pytest.raises(CheckpointError, match="cannot be opened by transformers either") as caught:
        open_bare(folder, EngineRoom())
    assert "http://HOST/v1#MODEL" in caught.value.remedy
    assert not trace.exists()


def test_scores_of_transformers_engines_are_its_own(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = foreign_folder(tmp_path, "decoder")
    engine: Any = open_bare(folder, EngineRoom())
    before, after = engine.scored_ids("where is", " my parcel")
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(folder).eval()(torch.tensor([[*before, *after]])).logits[0]
    values = logits.log_softmax(-1)[len(before) - 1 : -1].gather(-1, torch.tensor(after).unsqueeze(-1))
    assert engine.score([("where is", " my parcel")])[0].log_probability == pytest.approx(float(values.sum()), abs=1e-4)


# --- pieces


def test_pieces_hold_back_what_may_still_change(tmp_path: Path) -> None:
    native_folder(tmp_path, "decoder")
    tokenizer = Tokenizer.load(tmp_path)
    text = "🙂 naïve 我的包裹 END of it"
    ids = tokenizer.encode(text, add_special=False)
    pieces = Pieces(tokenizer, ("END",))
    found = [pieces.take(token) for token in ids]
    assert all("\ufffd" not in piece for piece in found)
    assert "".join(found) == "🙂 naïve 我的包裹 "
    free = Pieces(tokenizer)
    assert "".join(free.take(token) for token in ids) + free.rest(text) == text


# --- chat


def test_without_a_template_there_is_no_chat(tmp_path: Path) -> None:
    engine = Native(native_folder(tmp_path, "decoder", template=None))
    assert not engine.capabilities.chat
    with pytest.raises(Unsupported, match="chat"):
        engine.generate([(Message("user", "hello"),)], Sampling())
