"""The objective sft: what is trained, what is cut and told, packing, and conversations for encoder-decoders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from chat_kit import CALLING, CHATS, TOOLS, assistant, call, system, template, user
from objective_kit import kernel, rng
from objective_kit import tokenizer as kit_tokenizer

from nacre.data.chat import shipped
from nacre.data.chat.formats import Conversation
from nacre.data.chat.template import ChatTemplate
from nacre.errors import ConfigError, DataError
from nacre.kernel.model import Kernel
from nacre.train.objective import IGNORE, LanguageScore, prepare
from nacre.train.objectives.config_align import SftConfig
from nacre.train.objectives.sft import TAUGHT, TOKENS, Sft, SftSeq2Seq

ROWS = [{"messages": messages} for messages in CHATS.values()]
MANY = CHATS["many"]


def chat(name: str = "chatml") -> ChatTemplate:
    return template(name, kit_tokenizer("gpt"))


def sft(**config: Any) -> Sft:
    return Sft(chat(), SftConfig(**{"context": 96} | config))


def model(objective: Sft, **changes: Any) -> Kernel:
    return kernel("gpt", vocab_size=len(objective.tokenizer), **changes)


def taught(objective: Sft, row: dict[str, Any]) -> list[str]:
    """The runs of targets of one row, decoded."""
    example = objective.encode(row)
    assert example is not None
    texts: list[str] = []
    for run in example.runs:
        targets = run.targets
        edges = np.flatnonzero(np.diff(np.concatenate([[0], targets != IGNORE, [0]])))
        texts += [
            objective.tokenizer.decode(targets[a:b].tolist(), skip_special=False) for a, b in edges.reshape(-1, 2)
        ]
    return texts


def test_trap_09_targets_are_the_answers_and_their_ends() -> None:
    assert taught(sft(), {"messages": MANY}) == ["b<|im_end|>", "here 这里<|im_end|>", "there<|im_end|>"]
    assert taught(sft(trained="last"), {"messages": MANY}) == ["there<|im_end|>"]
    (everything,) = taught(sft(trained="all"), {"messages": MANY})
    assert everything.count("<|im_end|>") == len(MANY)


def test_trap_09_the_prediction_of_the_first_answer_token_is_made_at_the_last_prompt_token() -> None:
    objective = sft(packing="none")
    batch = objective.collate(prepare(objective, ROWS[:1]), rng())
    trained = (batch.targets[0] != IGNORE).nonzero().flatten()
    prompt = objective.template.prompt(CHATS["one"][:-1])
    assert batch.ids[0, : trained[0] + 1].tolist() == prompt
    answer = [*objective.tokenizer.encode("It is on its way.", add_special=False), objective.template.ends[0]]
    assert batch.targets[0, trained].tolist() == answer


def test_trap_15_shares_and_losses_of_text_are_told() -> None:
    objective = sft()
    prepare(objective, ROWS)
    share = objective.noted[TAUGHT] / objective.noted[TOKENS]
    assert 0 < share < 1
    whole = objective.template.tokens(MANY)
    short = sft(context=len(whole.ids) - 3, too_long="end")
    prepare(short, [{"messages": MANY}])
    assert short.truncated == {"answers cut at the context, without their end": 1, "tokens": 2}


def test_long_conversations_lose_their_oldest_turns_first() -> None:
    told = [system("be brief"), *MANY]
    last = [told[0], *MANY[-2:]]
    objective = sft(context=len(chat().tokens(last).ids) - 1)
    example = objective.encode({"messages": told})
    assert example is not None
    assert example.runs[0].tokens.tolist() == chat().tokens(last).ids.tolist()
    assert objective.truncated["conversations that lost their oldest turns"] == 1
    assert objective.truncated["tokens"] == len(chat().tokens(told).ids) - len(chat().tokens(last).ids)
    assert "answers cut at the context, without their end" not in +objective.truncated


def test_a_call_leaves_with_the_question_it_answers() -> None:
    objective = sft(context=60)
    assert taught(objective, {"messages": CALLING}) == ["welcome<|im_end|>"]


@pytest.mark.parametrize("too_long", ["turns", "end", "drop"])
def test_an_answer_is_never_cut_away_whole_without_a_word(too_long: str) -> None:
    objective = sft(context=24, too_long=too_long)
    long_question = {"messages": [user("why " * 40), assistant("so")]}
    assert objective.encode(long_question) is None
    assert objective.dropped.total() == 1
    long_answer = {"messages": [user("hi"), assistant("so " * 40)]}
    example = objective.encode(long_answer)
    if too_long == "drop":
        assert example is None
        return
    assert example is not None
    assert len(example.runs[0]) == 24
    assert (example.runs[0].targets != IGNORE).any()
    assert objective.truncated["answers cut at the context, without their end"] == 1


def test_where_the_end_is_cut_earlier_answers_stay() -> None:
    room = len(chat().tokens(MANY[:2]).ids) + 2
    assert taught(sft(context=room, too_long="end"), {"messages": MANY}) == ["b<|im_end|>"]


def test_templates_that_drop_thinking_train_each_answer_with_what_it_saw() -> None:
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and not loop.last %}"
        "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    objective = Sft(ChatTemplate(source, chat().tokenizer), SftConfig(context=96))
    row = {"messages": [user("a"), assistant("<think>x</think>b"), user("c"), assistant("<think>y</think>d")]}
    assert taught(objective, row) == ["<think>x</think>b<|im_end|>", "<think>y</think>d<|im_end|>"]
    example = objective.encode(row)
    assert example is not None
    second = objective.tokenizer.decode(example.runs[1].tokens.tolist())
    assert "x</think>" not in second
    assert sum(count for what, count in objective.noted.items() if "one answer at a time" in what) == 2


@pytest.mark.parametrize("packing", ["none", "documents"])
def test_trap_04_the_loss_depends_neither_on_the_batch_nor_on_padding(packing: str) -> None:
    objective = sft(packing=packing, count_bytes=True)
    examples, network = prepare(objective, ROWS * 2), model(objective)
    totals = []
    for size in (1, 3, 8):
        total = LanguageScore(0.0, 0, 0)
        for at in range(0, len(examples), size):
            total += objective.predict(network, objective.collate(examples[at : at + size], rng()))
        totals.append(total)
    assert len({(one.tokens, one.bytes) for one in totals}) == 1
    assert [one.nll for one in totals] == pytest.approx([totals[0].nll] * 3, rel=1e-6)
    answers = [one["content"] for row in ROWS * 2 for one in row["messages"] if one["role"] == "assistant"]
    assert totals[0].bytes == sum(len(f"{text}<|im_end|>".encode()) for text in answers)


def test_trap_20_positions_begin_anew_with_every_conversation() -> None:
    objective = sft(context=128)
    batch = objective.collate(prepare(objective, ROWS[:3]), rng())
    assert batch.segments is not None
    assert batch.positions is not None
    starts = (batch.segments.diff(dim=1, prepend=torch.zeros(len(batch.segments), 1)) > 0) & (batch.segments > 0)
    assert int(starts.sum()) == 3
    assert not batch.positions[starts].any()


def test_trap_21_changing_one_conversation_leaves_its_neighbours_loss() -> None:
    objective = sft(context=128)
    network = model(objective).double()
    examples = prepare(objective, ROWS[:2])
    assert len(examples) == 1
    batch = objective.collate(examples, rng())
    assert batch.segments is not None
    other = batch.segments == 2
    changed = batch.ids.clone()
    changed[batch.segments == 1] = 7

    def logits(ids: torch.Tensor) -> torch.Tensor:
        hidden = network(ids, segments=batch.segments, positions=batch.positions).hidden
        return network.lm_logits(hidden)[other]

    assert torch.equal(logits(batch.ids), logits(changed))


def test_bad_rows_are_counted_and_other_formats_refused() -> None:
    objective = sft()
    rows = [*ROWS, {"messages": [user("a")]}, {"messages": [user("a"), assistant("")]}]
    prepare(objective, rows)
    assert objective.dropped == {"ends with the user": 1, "empty answer": 1}
    with pytest.raises(DataError, match=r"data, row 1: these rows are preference pairs"):
        prepare(sft(), [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(DataError, match=r"none of 1 rows can be used \(1 ends with the user"):
        prepare(sft(), [{"messages": [user("a")]}])


def test_templates_that_do_not_tell_answers_are_refused_before_any_row() -> None:
    plain = "{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(ConfigError, match="what a model should learn"):
        Sft(ChatTemplate(plain, chat().tokenizer))
    assert Sft(ChatTemplate(plain, chat().tokenizer), SftConfig(trained="all")).encode(ROWS[0]) is not None


def test_kernels_without_the_templates_tokens_are_refused() -> None:
    with pytest.raises(ConfigError, match="vocab_size"):
        sft().check(kernel("gpt"))
    with pytest.raises(ConfigError, match="layout"):
        sft().check(kernel("t5", vocab_size=900))


# --- encoder-decoders


def seq2seq(name: str | None = None, **config: Any) -> SftSeq2Seq:
    base = kit_tokenizer("t5")
    if name is None:
        return SftSeq2Seq(base, None, SftConfig(**{"context": 96, "target_context": 48} | config))
    extended = shipped.extended(base, shipped.lacking(name, base))
    return SftSeq2Seq(extended, ChatTemplate.named(name, extended), SftConfig(**{"context": 96} | config))


def test_a_question_goes_to_the_encoder_and_its_answer_to_the_decoder() -> None:
    objective = seq2seq()
    found = objective.encode({"messages": CHATS["chinese"]})
    assert found is not None
    texts = [objective.tokenizer.decode(ids.tolist()) for ids in (found.source, found.target)]
    assert texts == [one["content"] for one in CHATS["chinese"]]
    assert found.source[-1] == found.target[-1] == objective.tokenizer.eos_id
    assert objective.encode({"messages": MANY}) is None
    assert objective.dropped.total() == 1


def test_with_a_template_the_last_answer_is_written_and_all_before_is_read() -> None:
    objective = seq2seq("chatml", trained="last")
    found = objective.encode({"messages": MANY})
    assert found is not None
    prompt = objective.template.prompt(MANY[:-1]) if objective.template else []
    assert found.source.tolist() == [*prompt, objective.eos_id]
    target = objective.tokenizer.decode(found.target.tolist(), skip_special=False)
    assert target.replace(" ", "") == "there<|im_end|></s>"
    talk = Conversation([user("x"), call("weather", city="上海")], TOOLS)
    assert objective.encode(talk.row()) is not None


def test_long_prompts_lose_their_beginning_and_long_answers_their_end() -> None:
    objective = seq2seq(context=8, target_context=6)
    found = objective.encode({"messages": [user("where is my parcel " * 4), assistant("it is late " * 9)]})
    assert found is not None
    assert (len(found.source), len(found.target)) == (8, 6)
    assert found.source[-1] == objective.eos_id
    assert objective.truncated == {
        "prompts cut at their beginning": 1,
        "answers cut at the context, without their end": 1,
    }
    dropping = seq2seq(context=8, too_long="drop")
    assert dropping.encode({"messages": [user("where is my parcel " * 4), assistant("late")]}) is None


def test_all_tokens_cannot_be_trained_where_an_encoder_reads_them() -> None:
    with pytest.raises(ConfigError, match="trained: all"):
        seq2seq(trained="all")
