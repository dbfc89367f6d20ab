"""The work behind the evaluations of writing: language, translation, generation. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nacre.errors import CheckpointError
from nacre.kernel.generate import GenerationConfig
from nacre.kernel.sampling import SamplingConfig
from nacre.lifecycle.evaluate.measured import scalars
from nacre.lifecycle.evaluate.measured_text import Translations, Writing, language, translation, writing
from nacre.lifecycle.evaluate.predict import Answers, Model, language_scores, start_ids, written
from nacre.lifecycle.evaluate.stages import EvaluateConfig, GenerateConfig, TranslateConfig
from nacre.lifecycle.evaluate.testset import Row, field_of, read_rows, recorded_objective, row_id
from nacre.lifecycle.evaluate.worker import context_of, cut_notes, load_model, publish, setting_of
from nacre.lineage.digest import digest_file
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.train.objectives.config import Seq2SeqConfig
from nacre.train.objectives.seq2seq import Seq2Seq


def evaluate_language(config: EvaluateConfig, work: Work) -> Mapping[str, Scalar]:
    """Bits per byte and perplexity by document."""
    rows = read_rows(work.inputs["data"], config.split, config.limit)
    model = load_model(config, work, head="lm")
    context = context_of(config, work, model)
    answers = language_scores(model, context, rows)
    folder = work.inputs.get("tokenizer", work.inputs["model"])
    setting = setting_of(config, work, cut_notes(config, context, answers))
    measured = language(answers.values, digest_file(folder / "tokenizer.json"), setting)
    found = (
        {"id": row_id(row, number), "nll_nats": score.nll_nats, "tokens": score.tokens, "bytes": score.text_bytes}
        for number, (row, score) in enumerate(zip(rows, answers.values, strict=True), 1)
    )
    publish(work, measured, found, answers)
    return scalars(measured.figures, ("documents", "bits_per_byte", "perplexity", "tokens", "bytes"))


def evaluate_translate(config: TranslateConfig, work: Work) -> Mapping[str, Scalar]:
    """Greedy translations against references."""
    rows = read_rows(work.inputs["data"], config.split, config.limit)
    data = work.inputs["data"]
    sources, references = ([str(text) for text in field_of(rows, name, data)] for name in ("source", "target"))
    model = load_model(config, work, head="lm")
    if model.kernel.config.layout != "encoder-decoder":
        raise CheckpointError(
            f"{work.inputs['model']} is a {model.kernel.config.layout} and translates nothing",
            remedy="give an encoder-decoder kernel, such as the preset t5-v1.1",
        )
    context = context_of(config, work, model)
    start = recorded_objective(work.inputs["model"]).get("start_id")
    objective = Seq2Seq(model.words, Seq2SeqConfig(context=context, target_context=context, start_id=start))
    prompts = [objective.encode(row).source.tolist() for row in rows]
    answers = Answers([], objective.truncated, objective.dropped)
    greedy = GenerationConfig(config.max_new_tokens, SamplingConfig(temperature=0.0))
    texts = written(model, prompts, lambda _: greedy)
    answers.truncated["translations that reached max_new_tokens"] += sum(why == "length" for _, why in texts)
    pairs = Translations(sources, references, [text for text, _ in texts], config.target_language)
    measured = translation(pairs, setting_of(config, work, cut_notes(config, context, answers)))
    found = (
        {"id": row_id(row, number), "source": source, "target": target, "predicted": text, "stopped": why}
        for number, (row, source, target, (text, why)) in enumerate(
            zip(rows, sources, references, texts, strict=True), 1
        )
    )
    publish(work, measured, found, answers)
    return scalars(measured.figures, ("sentences", "bleu", "chrf", "exact_matches", "empty_outputs"))


def evaluate_generate(config: GenerateConfig, work: Work) -> Mapping[str, Scalar]:
    """Samples with checks."""
    model = load_model(config, work, head="lm")
    prompts = [
        config.prompts[number % len(config.prompts)] if config.prompts else "" for number in range(config.samples)
    ]
    sampling = SamplingConfig(config.temperature, config.top_k, config.top_p, config.min_p, config.repetition_penalty)
    texts = written(
        model,
        [_prompt_ids(model, prompt) for prompt in prompts],
        lambda batch: GenerationConfig(config.max_new_tokens, sampling, config.stop, work.seed * 1_000_003 + batch),
    )
    found = Writing(
        texts=[text for text, _ in texts],
        stopped=[why for _, why in texts],
        prompts=prompts,
        training=_texts(config, work, "train"),
        held_out=_texts(config, work, config.split),
    )
    measured, rows = writing(found, config.checks, setting_of(config, work, ()))
    publish(work, measured, rows, Answers([]), "samples.jsonl")
    figures = measured.figures | _flat(measured.figures)
    return scalars(
        figures, ("samples", "valid_form", "rhyming", "parses", "copied_lines", "copied_texts", "distinct_2")
    )


def _flat(figures: Mapping[str, Any]) -> dict[str, Any]:
    copies, poems = figures.get("novelty", {}), figures.get("poems", {})
    return {
        "copied_lines": copies.get("copied_lines"),
        "copied_texts": copies.get("copied_texts"),
        "rhyming": poems.get("rhyming"),
    }


def _prompt_ids(model: Model, prompt: str) -> list[int]:
    tokenizer = model.words
    if not prompt:
        return start_ids(tokenizer)
    start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    return [*start, *tokenizer.encode(prompt, add_special=False)]


def _texts(config: GenerateConfig, work: Work, split: str) -> list[str]:
    """Texts of a split of the data; none without data, and no training texts where only test texts were given."""
    data = work.inputs.get("data")
    if data is None or (data.is_dir() and not list(data.glob(f"{split}.jsonl*"))) or not data.is_dir():
        return []
    rows: list[Row] = read_rows(data, split, None)
    return [str(text) for text in field_of(rows, "text", data)]
