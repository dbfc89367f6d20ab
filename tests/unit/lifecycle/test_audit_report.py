"""What a report says: both languages, the first screen, what stays in English, gates, and disagreement in `trace`."""

from __future__ import annotations

import ast
import copy
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from string import Formatter

import pytest

import nacre.lifecycle.audit
from nacre.cli.main import main
from nacre.errors import GateRefused, GateUnanswered
from nacre.lifecycle.audit.audit import AuditOptions
from nacre.lifecycle.audit.messages import MESSAGES
from nacre.lifecycle.audit.recording import record
from nacre.lifecycle.audit.report import render
from nacre.lifecycle.audit.report.content import not_tested, notes
from nacre.lifecycle.audit.result import GATES, parse_gate, pass_gate
from nacre.lifecycle.audit.said import Said, clauses, in_language, is_whole, say, spoken, term
from nacre.lifecycle.audit.sentences import summarise
from nacre.lifecycle.audit.verdict import WORDS, Evidence, Pair, StageVerdict, Word, overall, untestable
from nacre.lifecycle.audit.words import Words, keys
from nacre.lineage.record import Parent, Record, write
from nacre.lineage.store import Store

SOURCE = Path(str(nacre.lifecycle.audit.__file__)).parent
# What reads like a sentence and is none: lines of the graph, lists of roles, a canary, the head of a table. The numbers
# only ever go down.
IN_ENGLISH = {"data/canaries.py": 1, "kernel/families.py": 4, "kernel/graph.py": 1, "kernel/group.py": 1,
              "kernel/roles.py": 1}  # fmt: skip
# Nothing of these is said by a stage: other words, errors with their remedies, attacks of the bank, patterns.
NOT_STAGES = (
    "words.py",
    "messages",
    "said.py",
    "sentences.py",
    "report",
    "attacks",
    "readers",
    "recording.py",
    "kept.py",
)
PROSE = re.compile(r"[A-Za-z'-]{2,} [a-z'-]+ [a-z'-]+")


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def said_templates() -> Iterator[tuple[str, str, ast.Call]]:
    """Every template given to `say`: a literal, one of a table, or what a name was given nearby."""
    for name, tree in trees():
        tables = {one: node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)
                  for one in named(node) if isinstance(node.value, ast.Dict)}  # fmt: skip
        for scope in ast.walk(tree):
            if not isinstance(scope, ast.FunctionDef):
                continue
            given = {one: node.value for node in ast.walk(scope) if isinstance(node, ast.Assign) for one in named(node)}
            for node in ast.walk(scope):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say" and node.args:
                    if any(one.arg is None for one in node.keywords):
                        continue  # a sentence made again of what was kept of it
                    found = literals(node.args[0], tables, given)
                    assert found, f"{name}: {ast.unparse(node)} has no template to be found"
                    yield from ((name, one, node) for one in found)


def named(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [one.id for one in targets if isinstance(one, ast.Name)]


def literals(node: ast.expr, tables: dict[str, ast.Dict], given: dict[str, ast.expr]) -> list[str]:
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.IfExp):
        return literals(node.body, tables, given) + literals(node.orelse, tables, given)
    if isinstance(node, ast.Name) and node.id in given:
        return literals(given[node.id], tables, {})
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in tables:
        return [text for one in tables[node.value.id].values for text in literals(one, tables, given)]
    return []


def places(template: str) -> list[tuple[str, str]]:
    return sorted((name, spec or "") for _, name, spec, _ in Formatter().parse(template) if name is not None)


def test_every_sentence_that_is_said_stands_in_the_table() -> None:
    found = list(said_templates())
    assert len(found) > 30
    lacking = {(name, one) for name, one, _ in found if one not in MESSAGES}
    assert not lacking


def test_both_languages_name_the_same_values_in_the_same_form() -> None:
    for english, chinese in MESSAGES.items():
        assert re.search(r"[\u4e00-\u9fff]", chinese) or not re.search(r"[a-z]{2}", re.sub(r"\{.*?\}", "", english))
        assert set(places(english)) == set(places(chinese)), english


def test_every_sentence_is_given_the_values_that_it_names() -> None:
    for name, template, call in said_templates():
        wanted = {place for place, _ in places(template)}
        given = {one.arg for one in call.keywords}
        several = not isinstance(call.args[0], ast.Constant)  # one of several templates may leave values out
        assert wanted <= given if several else wanted == given, f"{name}: {template}"


def test_no_row_of_the_table_is_left_over() -> None:
    """A row is a template or a sentence that the source still holds."""
    elsewhere = {node.value for name, tree in trees() if not name.startswith("messages") for node in ast.walk(tree)
                 if isinstance(node, ast.Constant) and isinstance(node.value, str)}  # fmt: skip
    assert not {one for one in MESSAGES if one not in elsewhere}


def english_only(tree: ast.Module) -> list[str]:
    """Sentences of a file that no row translates: prose outside docstrings, errors and `say`."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
        if documented and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            skipped |= {id(one) for one in ast.walk(node.body[0])}
        said = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say"
        if said or isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr):
            skipped |= {id(one) for one in ast.walk(node) if one is not node}
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped or not isinstance(node, ast.Constant | ast.JoinedStr):
            continue
        text = node.value if isinstance(node, ast.Constant) else ast.unparse(node)
        if isinstance(text, str) and PROSE.search(text) and text not in MESSAGES and f"test_{text}" not in keys():
            found.append(text)
    return found


def test_what_is_left_in_english_only_shrinks() -> None:
    found = Counter({name: len(english_only(tree)) for name, tree in trees()
                     if not name.startswith(NOT_STAGES)})  # fmt: skip
    more = {name: count for name, count in found.items() if count > IN_ENGLISH.get(name, 0)}
    assert not more, f"sentences without Chinese: say(...) them and add rows to messages.py: {more}"


REASONS = {"CheckpointError": 0, "DataError": 0, "_Refused": 0, "damaged": 1}  # which argument is the message
# Mistakes of a caller, and what no audit meets: they become no stage's reason.
NO_REASONS = ("attacks", "calibration.py", "library.py", "readers/digest.py", "readers/ranges.py")


def test_what_is_wrong_with_a_file_is_said_in_both_languages() -> None:
    """Errors become the reason why a stage is not tested: an f-string would stand in English in a Chinese report."""
    found = []
    for name, tree in trees():
        for node in () if name.startswith(NO_REASONS) else ast.walk(tree):
            at = REASONS.get(getattr(node.func, "id", ""), 9) if isinstance(node, ast.Call) else 9
            if not isinstance(node, ast.Call) or len(node.args) <= at:
                continue
            message = node.args[at]
            untold = isinstance(message, ast.Constant) and str(message.value) not in MESSAGES
            if untold or isinstance(message, ast.JoinedStr):
                found.append(f"{name}: {ast.unparse(message)}")
    assert not found


# Said


def test_a_sentence_is_english_text_and_is_said_in_chinese() -> None:
    reason = say("{where}: {reason}", where="ours", reason="there are no weights")
    one = say("could not be tested: {reason}", reason=reason)
    assert one == "could not be tested: ours: there are no weights"
    assert spoken(one, "zh") == "无法检验：ours：没有权重"
    assert spoken(one, "en") == one
    assert spoken(say("Not tested: {stages}.", stages=[term("kernel"), term("data")]), "zh") == "未检验：内核、数据。"
    assert spoken(clauses(("depths differ", "", "no tokens are shared")), "zh") == "层数不同；没有共有的词元"


def test_numbers_keep_their_form_in_both_languages() -> None:
    one = say("{n:,} tokens are shared", n=12345)
    assert (str(one), spoken(one, "zh")) == ("12,345 tokens are shared", "共有 12,345 个词元")


def test_what_has_no_chinese_stays_english_and_is_marked() -> None:
    one = say("could not be tested: {reason}", reason="a new reason without a row")
    assert [tuple(piece) for piece in in_language(one, "zh")] == [
        ("无法检验：", False), ("a new reason without a row", True)
    ]  # fmt: skip
    assert not is_whole(one, "zh")
    assert is_whole(one, "en")
    assert not is_whole("some plain text", "zh")


def test_a_folder_that_is_named_like_a_word_is_not_translated() -> None:
    assert spoken(say("{where}: {reason}", where="pruned", reason="there are no weights"), "zh") == "pruned：没有权重"


def test_sentences_survive_copies_and_plain_values() -> None:
    one = untestable("kernel", say("{n:,} tokens are shared", n=3))
    kept = copy.deepcopy(one).reason
    assert isinstance(kept, Said)
    assert spoken(kept, "zh") == "共有 3 个词元"
    assert asdict(one)["reason"] == "3 tokens are shared"


# The page


def verdict(stage: str, word: Word, **more: object) -> StageVerdict:
    return StageVerdict(stage, word, str(more.pop("text", "said")), **more)  # type: ignore[arg-type]


def pair_of(*stages: StageVerdict, reference: str = "/models/theirs", **more: object) -> Pair:
    by_name = {one.stage: one for one in stages}
    digests = {"subject": "sha256:" + "ab" * 32, "reference": "sha256:" + "cd" * 32}
    pair = Pair("/models/ours", reference, by_name, overall(by_name), "", digests=digests, **more)  # type: ignore[arg-type]
    return replace(pair, summary=summarise(pair))


EXACT = Evidence("exact", 0.5, 1e-300, "exact", say("{n} operations differ", n=3), "depths differ")
DERIVED = verdict("weights", "DERIVED", kind="pruned", p_value=1e-9, tier="exact", evidence=(EXACT,))


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("word", WORDS)
def test_the_first_screen_is_enough_to_cite(word: Word, language: str) -> None:
    weights = verdict("weights", word, p_value=1e-9, tier="exact", evidence=(EXACT,), reason="why", power="what")
    pair = replace(pair_of(weights), verdict=word)
    header = render([pair], language, "2026-01-02").partition("<main>")[0].partition("<body>")[2]
    words = Words(language)
    for needed in (word, words(f"means_{word}"), "2026-01-02", "sha256:abababababababab", "sha256:cdcdcdcdcdcdcdcd",
                   "/models/ours", "/models/theirs", nacre.__version__):  # fmt: skip
        assert needed in header
    claims = word in ("IDENTICAL", "DERIVED", "SHARED_INIT")
    assert (("below 1 in a million" if language == "en" else "低于百万分之一") in header) == claims
    assert (words("no_claim") in header) != claims


def test_chinese_pages_mark_what_is_english_and_nothing_else() -> None:
    whole = pair_of(replace(DERIVED, text=say("depths differ")), untestable("data", "there is no data set"))
    page = render([whole], "zh", "2026-01-02").partition("<body>")[2]
    assert 'lang="en"' not in page
    mixed = replace(whole, stages={**whole.stages, "data": untestable("data", "a reason <i>nobody</i> has seen yet")})
    page = render([mixed], "zh", "2026-01-02").partition("<body>")[2]
    marked = re.findall(r'<span lang="en">(.*?)</span>', page)
    assert marked == ["a reason &lt;i&gt;nobody&lt;/i&gt; has seen yet"] * 2
    assert 'lang="en"' not in render([mixed], "en", "2026-01-02").partition("<body>")[2]


def test_references_are_ranked_with_p_corrected_for_their_number() -> None:
    none = verdict("weights", "NO_EVIDENCE", p_value=0.5, tier="exact", power="x")
    unread = pair_of(untestable("weights", "it is damaged"), reference="/models/broken")
    pairs = [pair_of(DERIVED), pair_of(none, reference="/models/else"), unread]
    page = render(pairs, "en", "2026-01-02")
    table = page[page.index('id="ranking"') : page.index('id="stages"')]
    assert "p, corrected for 3" in table
    assert table.index("/models/theirs") < table.index("/models/else") < table.index("/models/broken")
    assert "it is damaged" in table
    assert "corrected for 3 references" in page.partition("<main>")[0]


def test_many_names_are_folded_and_the_axes_of_the_map_are_named() -> None:
    screen = {"a": [0, 1], "b": [0, 1], "score": [[0.8, 0.0], [0.1, 0.7]]}
    asked = Evidence("invariant", 3.0, detail={"screen": screen})
    pair = pair_of(replace(DERIVED, evidence=(asked,)), rename_map={f"<script>{i}": f"b{i}" for i in range(200)})
    page = render([pair], "en", "2026-01-02")
    names = page[page.index('id="names"') :]
    assert "<details><summary>All 200 names" in names
    assert "<details open" not in page
    assert "&lt;script&gt;199" in names
    assert "<script" not in page
    for said in ("layers of the subject", "layers of the reference", "strongest 80%"):
        assert said in page


def test_facts_and_gaps_have_places_of_their_own() -> None:
    stopped = Evidence("body", None, text="depths differ")
    stage = replace(DERIVED, evidence=(EXACT, stopped), not_tested=("services of others",), notes=("a fact of it",))
    pair = pair_of(stage)
    gaps, facts = [str(one) for one in not_tested(pair)], [str(one) for one in notes(pair)]
    assert "weights: services of others." in gaps
    assert "weights, the layers without embeddings: depths differ." in gaps
    assert facts == ["weights: a fact of it."]
    page = render([pair], "en", "2026-01-02")
    tested = page[page.index('id="evidence"') : page.index('id="untested"')]
    assert "a fact of it" in tested
    assert "the layers without embeddings" not in tested


def test_a_fact_that_is_a_whole_sentence_ends_with_one_full_stop() -> None:
    pair = pair_of(replace(DERIVED, notes=("depths differ", "It ends here.", "以此结束。")))
    assert [str(one) for one in notes(pair)] == [
        "weights: depths differ.", "weights: It ends here.", "weights: 以此结束。"
    ]  # fmt: skip
    assert spoken(notes(pair)[0], "zh") == "权重：层数不同。"


def test_every_verdict_has_its_meaning() -> None:
    assert {f"means_{word}" for word in WORDS} <= keys()


@pytest.mark.parametrize("word", ["IDENTICAL", "DERIVED", "NO_EVIDENCE", "INCONCLUSIVE", "UNTESTABLE"])
def test_two_data_sets_are_judged_by_their_rows(word: Word) -> None:
    closed = [untestable(one, "it is not there") for one in ("kernel", "tokenizer", "weights")]
    pair = pair_of(*closed, verdict("data", word, reason="a reason", power="a power"))
    assert pair.verdict == word
    assert ("could not be compared at any stage" in pair.summary) == (word == "UNTESTABLE")


# Gates


def expected(word: str, gate: str) -> type[Exception] | None:
    own = word.lower().replace("_", "-")
    if own == gate or (own == "identical" and gate == "derived"):
        return GateRefused
    return GateUnanswered if word in ("SAME_DESIGN", "INCONCLUSIVE", "UNTESTABLE") else None


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("word", WORDS)
def test_every_gate_on_every_verdict(word: Word, gate: str) -> None:
    pair = replace(pair_of(DERIVED), verdict=word)
    error = expected(word, gate)
    if error is None:
        pass_gate([pair], parse_gate(gate))
        return
    with pytest.raises(error) as told:
        pass_gate([pair], parse_gate(gate))
    assert told.value.exit_code == (3 if error is GateRefused else 1)  # type: ignore[attr-defined]
    assert word in str(told.value)


def test_a_refusal_goes_before_what_could_not_be_decided_and_no_gate_passes() -> None:
    unread = replace(pair_of(DERIVED), verdict="UNTESTABLE")
    with pytest.raises(GateRefused):
        pass_gate([unread, pair_of(DERIVED)], parse_gate("derived"))
    pass_gate([unread], frozenset())


def test_a_gate_over_configs_alone_ends_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}')
    base = ["audit", str(config), "--against", str(config), "--no-record"]
    assert main(base) == 0
    assert main([*base, "--gate", "derived"]) == 1
    assert "neither passed nor refused" in capsys.readouterr().err
    assert main([*base, "--gate", "derived,same-design,untestable"]) == 3


# Lineage


def test_trace_shows_three_kinds_of_parents_and_says_where_they_disagree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, folders = tmp_path / "home", {}
    for name in ("ours", "said", "seen", "true"):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        (folders[name] / "notes.txt").write_text(name)
    parents = (
        Parent("finetuned_from", str(folders["said"]), basis="declared"),
        Parent("merged_from", str(folders["seen"]), basis="witnessed"),
    )
    write(folders["ours"], Record("foreign", 1, "model", "", basis="declared", parents=parents))
    none = verdict("weights", "NO_EVIDENCE", power="x")
    found = {"true": DERIVED, "said": none, "seen": none}
    pairs = [
        replace(pair_of(one, reference=str(folders[name])), subject=str(folders["ours"]), digests={})
        for name, one in found.items()
    ]
    store = Store(home)
    record(pairs, AuditOptions(store=store), store)
    main(["trace", str(folders["ours"]), "--store", str(home)])
    tree, _, warnings = capsys.readouterr().out.partition("\n\n")
    lines = {name: next(line for line in tree.splitlines() if str(folders[name]) in line) for name in found}
    assert f"finetuned_from (declared) {folders['said']}" in lines["said"]
    assert f"merged_from (witnessed) {folders['seen']}" in lines["seen"]
    assert "inferred by audit/ours@1: pruned, p < 1e-06 (exact)" in lines["true"]
    for name in ("said", "seen"):
        assert "disputed: audit/ours@1 does not confirm it: NO_EVIDENCE" in lines[name]
    assert "disputed: no record names it" in lines["true"]
    assert warnings.count("disagreement:") == 3
    assert warnings.index("disagreement:") < warnings.index("unclear:")
    main(["trace", str(folders["ours"]), "--store", str(home), "--mermaid"])
    assert capsys.readouterr().out.count(", disputed|") == 3
