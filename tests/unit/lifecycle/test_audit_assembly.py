"""The audit of a pair and of many references: which stages answer, what is said, what is kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nacre.errors import CheckpointError, DataError, GateRefused, ReferenceNotFound, UsageError
from nacre.lifecycle.audit import audit as assembly
from nacre.lifecycle.audit.audit import TESTED, AuditOptions, audit
from nacre.lifecycle.audit.counting import CountingSource
from nacre.lifecycle.audit.library import expanded, members
from nacre.lifecycle.audit.opening import open_subject
from nacre.lifecycle.audit.recording import artifact_name, record, told
from nacre.lifecycle.audit.result import as_object, parse_gate, pass_gate
from nacre.lifecycle.audit.sentences import chance, summarise
from nacre.lifecycle.audit.verdict import Evidence, Pair, StageVerdict, untestable
from nacre.lineage.graph import trace
from nacre.lineage.record import Parent, Record
from nacre.lineage.record import write as write_record
from nacre.lineage.store import Store

SIZES = {"vocab": 96, "hidden": 32, "ffn": 64, "layers": 2}


def write_model(folder: Path, seed: int = 0, prefix: str = "model.") -> Path:
    """A decoder of Llama's names with random weights."""
    draw = np.random.default_rng(seed)
    d, f = SIZES["hidden"], SIZES["ffn"]

    def values(*shape: int) -> Any:
        return draw.standard_normal(shape).astype(np.float32)

    tensors = {f"{prefix}embed_tokens.weight": values(SIZES["vocab"], d), f"{prefix}norm.weight": values(d)}
    tensors["lm_head.weight"] = values(SIZES["vocab"], d)
    for layer in range(SIZES["layers"]):
        lead = f"{prefix}layers.{layer}."
        tensors |= {f"{lead}self_attn.{name}_proj.weight": values(d, d) for name in "qkvo"}
        tensors |= {f"{lead}mlp.{name}_proj.weight": values(f, d) for name in ("gate", "up")}
        tensors[f"{lead}mlp.down_proj.weight"] = values(d, f)
        tensors |= {f"{lead}{name}.weight": values(d) for name in ("input_layernorm", "post_attention_layernorm")}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": d, "intermediate_size": f,
        "num_hidden_layers": SIZES["layers"], "num_attention_heads": 4, "vocab_size": SIZES["vocab"],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "one")


def verdict(stage: str, word: Any, **more: Any) -> StageVerdict:
    return StageVerdict(stage, word, more.pop("text", f"{stage} said {word}"), **more)


def pair_of(*stages: StageVerdict, reference: str = "base@1", **more: Any) -> Pair:
    from nacre.lifecycle.audit.verdict import overall

    by_name = {one.stage: one for one in stages}
    pair = Pair("ours@2", reference, by_name, overall(by_name), "", **more)
    return replace(pair, summary=summarise(pair))


def test_a_model_beside_itself_is_identical(model: Path) -> None:
    [pair] = audit(model, [model])
    assert pair.verdict == "IDENTICAL"
    assert pair.stages["kernel"].verdict == "IDENTICAL"
    assert pair.stages["tokenizer"].verdict == "UNTESTABLE"
    assert pair.digests["subject"] == pair.digests["reference"]
    assert "every tensor is the same" in pair.summary
    assert "Not tested: tokenizer, data." in pair.summary
    assert pair.cost["tensor_bytes_read"] > 0


def test_renamed_tensors_are_mapped_once_in_the_pair(model: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "two", prefix="transformer.")
    [pair] = audit(other, [model])
    assert pair.verdict == "IDENTICAL"
    assert pair.rename_map["transformer.layers.0.mlp.up_proj.weight"] == "model.layers.0.mlp.up_proj.weight"
    assert "rename_map" not in pair.stages["kernel"].detail


def test_a_damaged_shard_costs_its_stage_and_no_other(model: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "two")
    (other / "model.safetensors").write_bytes(b"")
    [pair] = audit(other, [model])
    assert pair.stages["weights"].verdict == "UNTESTABLE"
    assert "model.safetensors" in str(pair.stages["weights"].reason)
    assert pair.stages["kernel"].verdict == "SAME_DESIGN"
    assert pair.verdict == "SAME_DESIGN"
    assert "Nothing is said about weights" in pair.summary


@pytest.mark.parametrize("error", [DataError("rows are broken", remedy="mend"), MemoryError(), OSError("gone")])
def test_a_stage_that_raises_is_untestable(model: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> StageVerdict:
        raise error

    monkeypatch.setattr(assembly, "_STAGES", {**assembly._STAGES, "tokenizer": fails})
    [pair] = audit(model, [model])
    assert pair.stages["tokenizer"].verdict == "UNTESTABLE"
    assert pair.stages["tokenizer"].reason
    assert pair.verdict == "IDENTICAL"


def test_nan_weights_are_untestable_with_the_tensor_named(model: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "two", seed=1)
    tensors = load_file(other / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = np.nan
    save_file(tensors, other / "model.safetensors")
    [pair] = audit(other, [model])
    assert pair.stages["weights"].verdict == "UNTESTABLE"
    assert "mlp.up_proj" in str(pair.stages["weights"].reason)


def test_a_data_set_beside_a_model_is_untestable_at_every_stage(model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a row"}\n')
    [pair] = audit(rows, [model])
    assert {one.verdict for one in pair.stages.values()} == {"UNTESTABLE"}
    assert pair.verdict == "UNTESTABLE"
    assert all(one.reason for one in pair.stages.values())


@pytest.mark.parametrize("stage", ["kernel", "weights"])
def test_only_the_stages_asked_for_run(model: Path, stage: str) -> None:
    [pair] = audit(model, [model], AuditOptions(stages=(stage,)))
    assert list(pair.stages) == [stage]


def test_wrong_stages_and_no_references_are_usage_errors(model: Path) -> None:
    with pytest.raises(UsageError, match="no stage 'weihgts'"):
        audit(model, [model], AuditOptions(stages=("weihgts",)))
    with pytest.raises(UsageError):
        audit(model, [])


def test_many_references_are_ranked_and_one_that_cannot_be_read_says_so(model: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    write_model(library / "copy")
    write_model(library / "stranger", seed=7)
    broken = library / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    (library / "notes").mkdir()
    pairs = audit(model, [library])
    assert [Path(pair.reference).name for pair in pairs] == ["copy", "stranger", "broken"]
    assert pairs[0].verdict == "IDENTICAL"
    assert pairs[-1].verdict == "UNTESTABLE"
    assert "broken" in str(pairs[-1].stages["kernel"].reason)
    assert pairs[0].cost["references"] == 3


def test_an_only_reference_that_cannot_be_read_is_an_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="nothing of"):
        audit(model, [tmp_path / "empty"])
    with pytest.raises(ReferenceNotFound):
        audit(model, [model, tmp_path / "absent"])


def test_p_values_are_multiplied_by_the_number_of_references() -> None:
    one = verdict("tokenizer", "DERIVED", kind="pruned", p_value=0.004, tier="calibrated")
    assert assembly._for_all(one, 2, 0.01).verdict == "DERIVED"
    assert assembly._for_all(one, 2, 0.01).p_value == 0.008
    many = assembly._for_all(one, 3, 0.01)
    assert many.verdict == "INCONCLUSIVE"
    assert many.kind is None
    assert many.p_value == pytest.approx(0.012)
    assert assembly._for_all(one, 1000, 0.01).p_value == 1.0


def test_the_weights_are_told_how_many_references_there_are(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nacre.lifecycle.audit.weights import policy

    seen = []

    def compare(*args: Any) -> StageVerdict:
        seen.append(args[4].references)
        return untestable("weights", "a double")

    monkeypatch.setattr(policy, "compare", compare)
    audit(model, [model, model, model], AuditOptions(stages=("weights",)))
    assert seen == [3, 3, 3]


def test_the_control_is_told() -> None:
    fired = verdict("weights", "INCONCLUSIVE", reason="the control, an unrelated model, fired in basis")
    assert assembly._control(fired)["fired"]
    passed = verdict("weights", "DERIVED", kind="pruned", evidence=(Evidence("exact", 0.0), Evidence("basis", 9.0)))
    assert assembly._control(passed) | {"why": ""} == {"ran": True, "fired": False, "why": ""}
    assert not assembly._control(verdict("weights", "NO_EVIDENCE"))["ran"]
    assert not assembly._control(None)["ran"]


# What is said


DERIVED = verdict(
    "weights", "DERIVED", kind="fine-tuned", p_value=1e-9, tier="exact",
    evidence=(Evidence("basis", 40.0, 1e-9, "exact", assumption="equivariant training"),),
)  # fmt: skip


def test_the_summary_says_how_the_error_is_known_and_what_was_not_tested() -> None:
    pair = pair_of(verdict("kernel", "IDENTICAL"), DERIVED, untestable("tokenizer", "none"))
    assert pair.summary == (
        "The weights of ours@2 derive from base@1: fine-tuned; the files do not say who was first. The chance of such "
        "agreement between unrelated models is below 1 in a million (exact under its assumption: equivariant "
        "training). Sharing a design alone would say nothing. Not tested: tokenizer, data."
    )
    assert "微调" in summarise(pair, "zh")
    assert "未检验：分词器、数据" in summarise(pair, "zh")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("word", ["IDENTICAL", "SAME_DESIGN", "NO_EVIDENCE", "INCONCLUSIVE", "UNTESTABLE"])
def test_the_summary_never_says_derived_where_no_stage_does(word: Any, language: str) -> None:
    """A shared kernel and tokenizer with weights that say nothing more."""
    weights = verdict("weights", word if word != "IDENTICAL" else "NO_EVIDENCE", reason="why", power="what")
    pair = pair_of(verdict("kernel", "IDENTICAL"), verdict("tokenizer", "IDENTICAL"), weights)
    said = summarise(pair, language)
    assert pair.verdict not in ("DERIVED", "IDENTICAL")
    assert "derive from base@1:" not in said
    assert "权重派生自 base@1：" not in said


def test_chances_read_as_people_say_them() -> None:
    assert chance(1e-300) == chance(1e-6) == "below 1 in a million"
    assert chance(1 / 3161) == "at most 1 in 3,161"
    assert chance(0.4) == "at most 0.4"
    assert chance(1 / 3161, "zh") == "至多 3,161 分之一"


def test_the_object_has_the_fields_of_the_contract() -> None:
    one, other = pair_of(DERIVED), pair_of(verdict("weights", "NO_EVIDENCE", power="x"), reference="else@1")
    single, several = as_object([one]), as_object([one, other])
    names = {"subject", "references", "verdict", "summary", "stages", "rename_map", "control", "cost"}
    assert names <= single.keys()
    assert "pairs" not in single
    assert several["references"] == ["base@1", "else@1"]
    assert [each["verdict"] for each in several["pairs"]] == ["DERIVED", "NO_EVIDENCE"]
    json.dumps(several, allow_nan=False)


def test_gates() -> None:
    assert parse_gate("derived") == {"derived", "identical"}
    assert parse_gate("SHARED_INIT, no-evidence") == {"shared-init", "no-evidence"}
    for wrong in ("", "similar"):
        with pytest.raises(UsageError):
            parse_gate(wrong)
    with pytest.raises(GateRefused, match=r"DERIVED beside base@1"):
        pass_gate([pair_of(verdict("weights", "NO_EVIDENCE", power="x"), reference="else@1"), pair_of(DERIVED)],
                  parse_gate("derived"))  # fmt: skip
    pass_gate([pair_of(DERIVED)], parse_gate("shared-init"))


# Small parts


def test_folders_of_models_are_expanded_and_models_are_not(model: Path, tmp_path: Path) -> None:
    assert members(model) == []
    assert members(tmp_path) == [model]
    assert expanded([tmp_path, "name@1", "http://host/v1#m"]) == [model, "name@1", "http://host/v1#m"]


def test_bytes_are_counted_by_rows(model: Path) -> None:
    source = open_subject(model).tensors
    assert source is not None
    counted = CountingSource(source)
    counted.read("lm_head.weight")
    assert counted.bytes_read == 96 * 32 * 4
    counted.read("lm_head.weight", slice(0, 3))
    assert counted.bytes_read == 99 * 32 * 4
    list(counted.blocks("model.norm.weight"))
    assert counted.bytes_read == 99 * 32 * 4 + 32 * 4


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("intents/tune@2", "audit/intents/tune"),
        ("/data/My model (v2)", "audit/My-model-v2"),
        ("/data/7", "audit/of-7"),
        ("/data/…", "audit/of-"),
        ("/数据/模型", "audit/模型"),
    ],
)
def test_an_artifact_is_named_after_its_subject(subject: str, name: str) -> None:
    assert artifact_name(subject) == name


# Lineage


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def keep(store: Store, subject: Path, *references: Path) -> str:
    options = AuditOptions(store=store, stages=("kernel", "weights"))
    return record(audit(subject, references, options), options, store)


def test_a_derived_model_gets_an_inferred_parent_in_its_graph(model: Path, tmp_path: Path, store: Store) -> None:
    other = write_model(tmp_path / "two", prefix="transformer.")
    ref = keep(store, other, model)
    assert ref == "audit/two@1"
    assert keep(store, other, model) == ref
    root = trace(store, str(other))
    [parent] = root.parents
    assert (parent.basis, parent.relation, parent.ref) == ("inferred", "made_from", str(model))
    assert root.to_dict()["parents"][0]["inferred"]["tier"] == "exact"
    assert not [one for one in root.all_warnings() if one.kind in ("disagreement", "integrity")]


def test_an_audit_of_itself_and_one_without_evidence_infer_no_parent(model: Path, tmp_path: Path, store: Store) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    keep(store, copy, model)
    assert trace(store, str(copy)).parents == ()
    nothing = pair_of(verdict("weights", "NO_EVIDENCE", power="x"))
    assert told([nothing])["inferred"] == []


def declared(folder: Path, base: Path) -> None:
    parents = (Parent("finetuned_from", str(base), basis="declared"),)
    write_record(folder, Record("foreign", 1, "model", "", basis="declared", parents=parents))


def test_a_declared_base_that_is_not_confirmed_stands_out(model: Path, tmp_path: Path, store: Store) -> None:
    other = write_model(tmp_path / "two", seed=4)
    declared(other, model)
    pair = pair_of(verdict("weights", "NO_EVIDENCE", power="x"), reference=str(model))
    options = AuditOptions(store=store)
    record([replace(pair, subject=str(other))], options, store)
    said = [one.text for one in trace(store, str(other)).all_warnings() if one.kind == "disagreement"]
    assert len(said) == 1
    assert "does not confirm" in said[0]
    assert "NO_EVIDENCE" in said[0]


def test_an_inferred_parent_that_no_record_names_stands_out(model: Path, tmp_path: Path, store: Store) -> None:
    other = write_model(tmp_path / "two", prefix="transformer.")
    elsewhere = write_model(tmp_path / "three", seed=5)
    declared(other, elsewhere)
    keep(store, other, model)
    root = trace(store, str(other))
    assert [(one.ref, bool(one.inferred)) for one in root.parents] == [(str(elsewhere), False), (str(model), True)]
    said = [one.text for one in root.all_warnings() if one.kind == "disagreement"]
    assert len(said) == 1
    assert "no record of it names" in said[0]


def test_a_confirmed_declaration_is_no_disagreement(model: Path, tmp_path: Path, store: Store) -> None:
    other = write_model(tmp_path / "two", prefix="transformer.")
    declared(other, model)
    keep(store, other, model)
    assert not [one for one in trace(store, str(other)).all_warnings() if one.kind == "disagreement"]


def test_two_audits_both_ways_make_no_cycle(model: Path, tmp_path: Path, store: Store) -> None:
    other = write_model(tmp_path / "two", prefix="transformer.")
    keep(store, other, model)
    keep(store, model, other)
    root = trace(store, str(other))
    assert [one.ref for one in root.walk()] == [str(other), str(model), str(other)]
    assert not [one for one in root.all_warnings() if one.kind == "integrity"]


def test_all_stages_have_a_runner() -> None:
    assert tuple(assembly._STAGES) == TESTED
