"""Generation over the cache equals full recomputation, alone and in a batch, and `transformers` as an oracle."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from nacre.errors import ConfigError, DataError  # noqa: E402
from nacre.kernel.generate import Generated, GenerationConfig, embed, generate, score  # noqa: E402
from nacre.kernel.model import Kernel  # noqa: E402
from nacre.kernel.presets import preset  # noqa: E402
from nacre.kernel.sampling import SamplingConfig, choose, keep_min_p, keep_top_k, keep_top_p  # noqa: E402

SIZES = {"vocab_size": 97, "hidden_size": 32, "layers": 2, "heads": 4, "ffn_size": 48, "max_positions": 64}
DECODERS = {
    "gpt2": {},
    "llama2": {},
    "llama3": {"kv_heads": 2},
    "mistral": {"kv_heads": 2, "sliding_window": 5},
    "qwen2": {"kv_heads": 2},
    "qwen3": {"kv_heads": 2, "head_dim": 8},
}
GREEDY = SamplingConfig(temperature=0.0)
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12], [13, 14, 15]]


def kernel_of(name: str, seed: int = 0, **choices: object) -> Kernel:
    extra = {"init_std": 0.3} if not name.startswith("t5") else {}
    config = preset(name, **{**SIZES, **DECODERS.get(name, {}), **extra, "eos_id": 96, **choices})
    return Kernel(config, torch.Generator().manual_seed(seed)).eval()


def recomputed(kernel: Kernel, prompt: list[int], steps: int) -> list[int]:
    """Greedy writing without a cache: everything computed anew at every step."""
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            token = int(kernel.lm_logits(kernel(torch.tensor([ids])).hidden[0, -1]).argmax())
        if token == kernel.config.eos_id:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", DECODERS)
def test_trap_23_cached_generation_equals_recomputation(name: str) -> None:
    kernel = kernel_of(name)
    answers = generate(kernel, PROMPTS, GenerationConfig(20, GREEDY))
    assert [one.ids for one in answers] == [recomputed(kernel, prompt, 20) for prompt in PROMPTS]
    assert any(len(set(one.ids)) > 2 for one in answers), "a constant answer would prove nothing"


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_trap_22_left_padded_batch_equals_single_texts(name: str, temperature: float) -> None:
    kernel = kernel_of(name)
    config = GenerationConfig(12, SamplingConfig(temperature, top_p=0.95), seed=3)
    together = generate(kernel, PROMPTS, config)
    # A text draws from the stream of its place, so the same place alone is reached through equal neighbours.
    alone = [generate(kernel, [prompt] * (place + 1), config)[place] for place, prompt in enumerate(PROMPTS)]
    assert [one.ids for one in together] == [one.ids for one in alone]


def test_encoder_decoder_answers_equal_recomputation() -> None:
    kernel = kernel_of("t5", max_positions=64, decoder_start_id=0, pad_id=0, init_std=1.0)
    for prompt, answer in zip(PROMPTS, generate(kernel, PROMPTS, GenerationConfig(10, GREEDY)), strict=True):
        ids = [0]
        for _ in range(len(answer.ids)):
            with torch.no_grad():
                hidden = kernel(torch.tensor([prompt]), decoder_ids=torch.tensor([ids])).hidden
                ids.append(int(kernel.lm_logits(hidden[0, -1]).argmax()))
        assert ids[1:] == answer.ids


@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_greedy_equals_transformers(penalty: float, tmp_path: object) -> None:
    transformers = pytest.importorskip("transformers")
    hf = pytest.importorskip("nacre.kernel.hf")
    kernel = kernel_of("llama2")
    hf.save(kernel, tmp_path)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ours = generate(kernel, [PROMPTS[0]], GenerationConfig(16, SamplingConfig(0.0, repetition_penalty=penalty)))[0]
    theirs = reference.generate(
        torch.tensor([PROMPTS[0]]), max_new_tokens=16, do_sample=False, repetition_penalty=penalty, pad_token_id=0,
        eos_token_id=96,
    )[0, len(PROMPTS[0]) :].tolist()  # fmt: skip
    assert ours.ids == [token for token in theirs if token != 96]


@pytest.mark.parametrize(
    ("ours", "warper", "value"),
    [(keep_top_k, "TopKLogitsWarper", 5), (keep_top_p, "TopPLogitsWarper", 0.6), (keep_min_p, "MinPLogitsWarper", 0.2)],
)
def test_truncations_equal_transformers(ours: object, warper: str, value: float) -> None:
    process = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.randn(64, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    expected = getattr(process, warper)(value)(None, logits.clone())
    assert torch.equal(torch.isinf(ours(logits, value)), torch.isinf(expected))  # type: ignore[operator]


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]]).expand(20_000, 4)
    draws = torch.rand(20_000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    counts = choose(logits, [[]] * 20_000, SamplingConfig(), draws).bincount(minlength=4) / 20_000
    assert torch.allclose(counts, logits[0].softmax(-1), atol=0.015)
    edge = torch.tensor([1.0 - 1e-17, 0.0], dtype=torch.float64)
    assert choose(logits[:2], [[], []], SamplingConfig(), edge).tolist() == [2, 0]


def test_seeds_repeat_and_differ() -> None:
    kernel = kernel_of("llama2")
    first, again, other = (generate(kernel, PROMPTS, GenerationConfig(20, seed=seed)) for seed in (1, 1, 2))
    assert [one.ids for one in first] == [one.ids for one in again] != [one.ids for one in other]


def test_stop_strings_end_the_text_and_are_cut_off() -> None:
    kernel = kernel_of("llama2")
    decode = lambda ids: "".join(f"<{token}>" for token in ids)  # noqa: E731
    free = generate(kernel, PROMPTS[:1], GenerationConfig(20, GREEDY), decode=decode)[0]
    stop = f"<{free.ids[4]}>"
    ended = generate(kernel, PROMPTS[:1], GenerationConfig(20, GREEDY, stop=(stop,)), decode=decode)[0]
    assert ended.stopped == "stop"
    assert free.text is not None
    assert ended.text == free.text[: free.text.index(stop)]


def test_log_probabilities_are_those_of_score() -> None:
    kernel = kernel_of("qwen2")
    answer: Generated = generate(kernel, PROMPTS[:1], GenerationConfig(10, SamplingConfig(0.7, top_k=9), seed=4))[0]
    scored = score(kernel, [PROMPTS[0] + answer.ids])[0][len(PROMPTS[0]) - 1 :]
    assert answer.log_probabilities[: len(answer.ids)] == pytest.approx(scored, abs=1e-4)


ALONE = {
    "learned": ("gpt2", {"position": "learned"}),
    "rotary": ("llama2", {"position": "rotary"}),
    "relative": ("gpt2", {"position": "relative"}),
}


@pytest.mark.parametrize("position", ALONE)
def test_greedy_answers_are_the_same_alone_and_in_a_batch_up_to_the_last_position(position: str) -> None:
    name, choices = ALONE[position]
    kernel = kernel_of(name, max_positions=16, eos_id=None, **choices)
    prompts = [list(range(20, 34)), [12], [13, 14, 15], list(range(40, 48))]
    how = GenerationConfig(18, GREEDY)
    together, alone = generate(kernel, prompts, how), [generate(kernel, [prompt], how)[0] for prompt in prompts]
    assert [(one.ids, one.stopped) for one in together] == [(one.ids, one.stopped) for one in alone]
    written = [18] * 4 if position == "relative" else [2, 15, 13, 8]
    assert [len(one.ids) for one in together] == written
    assert len({tuple(one.ids[:2]) for one in together}) > 1, "equal answers would prove nothing"


@pytest.mark.parametrize("name", [*DECODERS, "t5"])
def test_scores_are_the_same_alone_and_in_batches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernel_of(name, **({"decoder_start_id": 0, "pad_id": 0, "init_std": 1.0} if name == "t5" else {}))
    draw = torch.Generator().manual_seed(5)
    lengths = [2, 30, 3, 7, 7, 21, 12]
    texts = [torch.randint(1, 96, (length,), generator=draw).tolist() for length in lengths]
    sources = [[*text[::-1], 7] for text in texts] if name == "t5" else None
    alone = [score(kernel, [text], sources and [sources[row]])[0] for row, text in enumerate(texts)]
    given = [min(4, length) for length in lengths]
    for tokens, logits in ((8192, 2**24), (50, 300)):
        monkeypatch.setattr("nacre.kernel.generate._TOKENS", tokens)
        monkeypatch.setattr("nacre.kernel.generate._LOGITS", logits)
        for found, wanted in zip(score(kernel, texts, sources), alone, strict=True):
            assert found == pytest.approx(wanted, abs=1e-5)
        first = 0 if name == "t5" else 1
        for found, wanted, left in zip(score(kernel, texts, sources, given=given), alone, given, strict=True):
            assert found == pytest.approx(wanted[left - first :], abs=1e-5)
    assert score(kernel, [], sources and []) == []


def test_a_batch_that_is_scored_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, seen = kernel_of("llama2"), []
    forward = kernel.forward
    monkeypatch.setattr("nacre.kernel.generate._TOKENS", 40)
    monkeypatch.setattr(kernel, "forward", lambda ids, **given: (seen.append(ids.numel()), forward(ids, **given))[1])
    score(kernel, [[5] * length for length in (2, 30, 3, 60, 7, 7, 21, 12)])
    assert max(seen) == 59  # a text longer than that stands alone
    assert sorted(seen)[-2] <= 40
    assert len(seen) < 8


def test_the_context_bounds_a_text_and_says_so() -> None:
    kernel = kernel_of("llama2", max_positions=12, eos_id=None)
    answer = generate(kernel, PROMPTS[:1], GenerationConfig(50, GREEDY))[0]
    assert (answer.stopped, len(answer.ids)) == ("context", 5)
    with pytest.raises(DataError, match="12 positions"):
        generate(kernel, [list(range(1, 13))], GenerationConfig(5))


@pytest.mark.parametrize(
    "bad", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0.0}, {"min_p": 2}, {"repetition_penalty": 0}]
)
def test_senseless_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        SamplingConfig(**bad)  # type: ignore[arg-type]


def test_an_encoder_cannot_write() -> None:
    kernel = Kernel(preset("bert", vocab_size=50, hidden_size=16, layers=1, heads=2, max_positions=16))
    with pytest.raises(ConfigError, match="cannot write"):
        generate(kernel, [[1, 2]])


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_embeddings_do_not_depend_on_padding_or_batch(pooling: str) -> None:
    kernel = Kernel(preset("bert", vocab_size=50, hidden_size=16, layers=2, heads=2, max_positions=16))
    texts = [[1, 2, 3, 4, 5, 6], [7], [8, 9]]
    together = embed(kernel, texts, pooling)  # type: ignore[arg-type]
    alone = torch.cat([embed(kernel, [text], pooling) for text in texts])  # type: ignore[arg-type]
    assert torch.allclose(together, alone, atol=1e-6)
