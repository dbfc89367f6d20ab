"""YAML, configs and plans: every mistake is found before any work, with its place and a remedy."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import toy_stages

from nacre.errors import ConfigError, DataError, IntegrityError, MissingDependency, UsageError
from nacre.lineage.store import Store
from nacre.recipe import catalogue, yaml12
from nacre.recipe.config import build, plain
from nacre.recipe.plan import make
from nacre.recipe.recipe import load
from nacre.recipe.references import open_store
from nacre.recipe.run import RunOptions, run
from nacre.recipe.stage import Input, Work, stage
from nacre.train.config import TrainConfig


@dataclass(frozen=True)
class Inner:
    n: int = 1


@dataclass(frozen=True)
class Outer:
    lr: float
    kind: Literal["adam", "sgd"] = "adam"
    sizes: tuple[int, ...] = ()
    folder: Path = Path("x")
    inner: Inner = Inner()
    maybe: Inner | None = None
    named: dict[str, Inner] = field(default_factory=dict)
    listed: list[Inner] = field(default_factory=list)
    text: str = ""
    flag: bool = False


@dataclass(frozen=True)
class Long:
    INSTEAD: ClassVar = (("steps", "epochs"),)

    steps: int | None = None
    epochs: float | None = None
    sizes: tuple[int, ...] = (1,)
    inner: Inner = Inner()


@dataclass(frozen=True)
class Standing:
    """Sections that are here by default otherwise than everywhere."""

    long: Long = field(default_factory=lambda: Long(epochs=3, sizes=(4, 5), inner=Inner(7)))


@dataclass(frozen=True)
class Around:
    plain: Long = Long()
    standing: Standing | None = None


def test_a_section_given_in_part_keeps_the_defaults_of_its_place() -> None:
    whole = Long(epochs=3, sizes=(4, 5), inner=Inner(7))
    assert build(Standing, {}, "x").long == whole
    assert build(Standing, {"long": {}}, "x").long == whole
    assert build(Standing, {"long": {"sizes": [2]}}, "x").long == replace(whole, sizes=(2,))
    assert build(Standing, {"long": {"inner": {}, "epochs": 1}}, "x").long == replace(whole, epochs=1)
    assert build(Standing, {"long": {"inner": {"n": 1}}}, "x").long.inner == Inner(1)  # the dataclass's own, said aloud
    assert build(Around, {"standing": {"long": {"sizes": [2]}}}, "x").standing == Standing(replace(whole, sizes=(2,)))
    assert build(Around, {"plain": {"sizes": [2]}}, "x").plain == Long(sizes=(2,))
    # Steps that are given are the length, not one more bound beside the epochs of the default.
    assert build(Standing, {"long": {"steps": 9}}, "x").long == replace(whole, steps=9, epochs=None)


def test_a_stage_trains_as_long_as_its_default_says_unless_told() -> None:
    kind = catalogue.find("tune.classify").config_type
    assert build(kind, {"train": {"lr": 1e-3}}, "x").train == TrainConfig(epochs=3, lr=1e-3)
    assert build(kind, {"train": {"max_steps": 5}}, "x").train == TrainConfig(max_steps=5)
    folds = build(catalogue.find("tune.crossvalidate").config_type, {"tune": {"train": {"lr": 1e-3}}}, "x")
    assert folds.tune.train.epochs == 3
    solve = build(catalogue.find("tune.solve").config_type, {"bottleneck": {"width": 4}}, "x")
    assert (solve.bottleneck.method, solve.bottleneck.width) == ("bottleneck", 4)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1E5", 1e5),
        ("-1.5e+3", -1500.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("10_000", 10000),
        ("0", 0),
        ("-7", -7),
        ("true", True),
        ("~", None),
        ("", None),
        ("-.inf", float("-inf")),
        # Strings to everyone but YAML 1.1.
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("007", "007"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("意图", "意图"),
        ("'2e-4'", "2e-4"),
    ],
)
def test_scalars_mean_what_people_mean(text: str, value: object) -> None:
    found = yaml12.loads(f"key: {text}", "x")["key"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: 'a' stands twice, in line 1 too"),
        ("a:\n  b: 1\n  b: 2", "line 3: 'b' stands twice"),
        ("a:\n\t- b", "line 2: a tab is used as indentation"),
        ("a: [1", "line 1"),
        ("1: 2", "the key 1 is not a string"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: 1\nb: \x07", "line 2: the control character #x0007"),
        ("a: &a\n  b: *a", "an alias stands inside what it names"),
    ],
)
def test_yaml_mistakes_name_their_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        yaml12.loads(text, "x.yaml")


def test_encodings_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes("name: 意图\nabout: 中文".encode("gb18030"))
    with pytest.raises(ConfigError, match=r"line 1: not UTF-8 at byte 6; it may be GB18030") as caught:
        yaml12.load(path)
    assert "iconv -f GB18030" in caught.value.remedy
    path.write_bytes("name: x".encode("utf-16"))
    with pytest.raises(ConfigError, match="UTF-16"):
        yaml12.load(path)
    path.write_bytes(b"\xef\xbb\xbfname: x")
    assert yaml12.load(path) == {"name": "x"}
    with pytest.raises(ConfigError, match="does not exist") as caught:
        yaml12.load(tmp_path / "y.yaml")
    assert "x.yaml" in caught.value.remedy


def test_configs_are_built_with_every_kind_of_field() -> None:
    values = {
        "lr": 1, "sizes": [1, 2], "folder": "a/b", "inner": {"n": 2}, "maybe": {"n": 3},
        "named": {"k": {"n": 4}}, "listed": [{"n": 5}],
    }  # fmt: skip
    built = build(Outer, values, "config")
    assert built == Outer(1.0, "adam", (1, 2), Path("a/b"), Inner(2), Inner(3), {"k": Inner(4)}, [Inner(5)])
    assert plain(built) == {
        "lr": 1.0, "kind": "adam", "sizes": [1, 2], "folder": "a/b", "inner": {"n": 2}, "maybe": {"n": 3},
        "named": {"k": {"n": 4}}, "listed": [{"n": 5}], "text": "", "flag": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 1.0, "knd": "sgd"}, r"c: unknown key 'knd'.*did you mean 'kind'"),
        ({"lr": 1.0, "inner": {"m": 1}}, r"c\.inner: unknown key 'm'"),
        ({"lr": 1.0, "maybe": {"m": 1}}, r"c\.maybe: unknown key 'm'"),
        ({"lr": 1.0, "named": {"k": {"m": 1}}}, r"c\.named\.k: unknown key 'm'"),
        ({"lr": 1.0, "listed": [{"m": 1}]}, r"c\.listed\.0: unknown key 'm'"),
        ({"lr": "2e-4"}, r"c\.lr: .*write 2e-4 without quotes"),
        ({"lr": True}, r"c\.lr: .*not true"),
        ({"lr": None}, r"c\.lr: .*not null"),
        ({"lr": "nan"}, r"c\.lr: (?!.*without quotes).*not \"nan\""),
        ({"lr": 1.0, "inner": [1]}, r"c\.inner: .*a mapping"),
        ({}, r"c\.lr: required and not given"),
        ({"lr": 1.0, "sizes": [1.5]}, r"c\.sizes\.0"),
        ({"lr": 1.0, "flag": 1}, r"c\.flag: .*not 1"),
        ({"lr": 1.0, "text": 3}, r"c\.text: .*not 3"),
        ({"lr": 1.0, "kind": "adan"}, r"c\.kind: .*did you mean 'adam'"),
        ({"lr": 1.0, "inner": 3}, r"c\.inner"),
    ],
)
def test_config_mistakes_are_told_one_by_one(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, values, "c")
    import re

    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)


def edit(folder: Path, old: str, new: str) -> Path:
    path = folder / "toy.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_mistakes_of_all_steps_are_told_together(toy_folder: Path) -> None:
    edit(toy_folder, "config: {steps: 6, lr: 2e-4}", "config: {stepps: 6}")
    edit(toy_folder, "source: raw.txt", "source: row.txt")
    path = edit(toy_folder, "stage: toy.measure", "stage: toy.mesure")
    with pytest.raises(ConfigError) as caught:
        make(load(path), Store())
    text = str(caught.value)
    assert "4 mistakes" in text
    for part in (
        "there is no file or folder",
        "did you mean 'raw.txt'",
        "did you mean 'steps'",
        "lr: required",
        "did you mean 'toy.measure'",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("source: raw.txt", "sorce: raw.txt", "did you mean 'source'"),
        ("data: clean}\n    config", "}\n    config", "needs the input 'data'"),
        ("model: train", "model: clean", "clean is a dataset, not a model"),
        ("model: train", "model: trian", "did you mean 'train'"),
        ("source: raw.txt", "source: measure", "wait for each other: clean -> measure -> train -> clean"),
        ("name: toy", "nmae: toy", "did you mean 'name'"),
        ("name: toy", "name: ../toy", "cannot name an artifact"),
        ("seed: 7", "seed: seven", "seed: .*valid integer"),
        ("seed: 7", "seed: 7\nseed: 8", "stands twice"),
        ("seed: 7", "seed: -7", r"seed is -7"),
        ("seed: 7", "seed: 99999999999999999999", "from 0 to"),
        ("source: raw.txt", "source: rwa.txt", "did you mean 'raw.txt'"),
        ("source: raw.txt", "source: ./no/raw.txt", "is no folder either"),
        ("model: train", "model: trian", r"did you mean 'train', a step of this recipe\?"),
        ("source: raw.txt", "source: dat:clean", "unknown kind of reference"),
        ("stage: toy.clean", "stge: toy.clean", "did you mean 'stage'"),
    ],
)
def test_recipe_mistakes(toy_folder: Path, old: str, new: str, message: str) -> None:
    import re

    with pytest.raises(ConfigError) as caught:
        make(load(edit(toy_folder, old, new)), Store())
    assert re.search(message, str(caught.value)), str(caught.value)


def test_overrides_reach_nested_keys_and_are_strict(toy_folder: Path) -> None:
    path = toy_folder / "toy.yaml"
    recipe = load(path, ["train.lr=3e-4", "train.optimiser.name=adam"])
    config = make(recipe, Store()).steps[1].record.config
    assert (config["lr"], config["optimiser"]) == (3e-4, {"name": "adam", "momentum": 0.9})
    with pytest.raises(UsageError, match="did you mean 'train'"):
        load(path, ["trian.lr=1"])
    for text in ("train.lr", "train=3", "=3", "train.=3"):
        with pytest.raises(UsageError, match=r"STEP\.KEY=VALUE"):
            load(path, [text])
    with pytest.raises(ConfigError, match="did you mean 'momentum'"):
        make(load(path, ["train.optimiser.momentun=1"]), Store())


def test_empty_sections_mean_nothing_is_set(toy_folder: Path) -> None:
    path = edit(toy_folder, "  measure:\n    stage: toy.measure", "  measure:\n    config:\n    stage: toy.measure")
    assert make(load(path), Store()).steps[2].record.config == {"digits": 3}


def test_the_plan_is_pure_and_complete(toy_folder: Path) -> None:
    store = Store()
    plan = make(load(toy_folder / "toy.yaml"), store)
    assert not store.root.exists()
    text = json.dumps(plan.to_dict())
    assert "fingerprint" in text
    assert plan.to_dict()["steps"][0]["inputs"][0]["digest"].startswith("sha256:")


def test_a_changed_byte_in_a_raw_input_makes_the_step_run_again(toy_folder: Path) -> None:
    store, recipe = Store(), load(toy_folder / "toy.yaml")
    run(recipe, store)
    (toy_folder / "raw.txt").write_text("hello world\n你好世界\nno\nthree words hero\n", encoding="utf-8")
    step = make(recipe, store).steps[0]
    assert (step.state, step.why.partition(": ")[2]) == (
        "run",
        f"input source {toy_folder / 'raw.txt'} has other bytes now",
    )


def test_reverting_a_config_finds_the_old_version(toy_folder: Path) -> None:
    store = Store()
    run(load(toy_folder / "toy.yaml"), store)
    run(load(toy_folder / "toy.yaml", ["train.lr=1e-3"]), store)
    results = run(load(toy_folder / "toy.yaml"), store)
    assert [(one.state, one.ref) for one in results] == [
        ("cached", "toy/clean@1"), ("cached", "toy/train@1"), ("cached", "toy/measure@1"),
    ]  # fmt: skip


def test_trap_55_a_run_refuses_an_input_that_was_changed(toy_folder: Path) -> None:
    store, recipe = Store(), load(toy_folder / "toy.yaml")
    run(recipe, store)
    (store.folder("toy/clean", 1) / "train.jsonl").write_text("{}\n")
    with pytest.raises(IntegrityError, match=r"toy/clean@1: the file train\.jsonl was changed"):
        run(load(toy_folder / "toy.yaml", ["train.lr=1e-3"]), store)


def test_checks_run_before_any_step_when_their_inputs_exist(toy_folder: Path) -> None:
    store = Store()
    run(load(toy_folder / "toy.yaml", ["clean.min_chars=99"]), store, RunOptions(only="clean"))
    path = edit(toy_folder, "inputs: {data: clean}\n    config", "inputs: {data: toy/clean@1}\n    config")
    with pytest.raises(DataError, match="holds no rows"):
        run(load(path), store)
    assert store.names() == ["toy/clean"]  # not even the new clean ran


def test_checks_run_right_before_a_step_otherwise(toy_folder: Path) -> None:
    store = Store()
    with pytest.raises(DataError, match="holds no rows"):
        run(load(toy_folder / "toy.yaml", ["clean.min_chars=99"]), store)
    assert store.names() == ["toy/clean"]
    assert not list((store.root / "work").iterdir())


def test_wrong_data_leaves_nothing_to_go_on_from(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: toy_stages.CleanConfig, work: Work) -> dict[str, float]:
        (work.scratch / "half.jsonl").write_text("{")
        raise DataError("row 57 is broken", remedy="mend it")

    monkeypatch.setattr(toy_stages, "clean", replace(toy_stages.clean, function=refuse))
    store = Store()
    with pytest.raises(DataError):
        run(load(toy_folder / "toy.yaml"), store)
    assert not list((store.root / "work").iterdir())
    assert make(load(toy_folder / "toy.yaml"), store).steps[0].state == "run"


def test_a_store_that_cannot_be_written_is_told_before_work(toy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        open_store(tmp_path / "file")
    with pytest.raises(UsageError, match="cannot be written"):
        run(load(toy_folder / "toy.yaml"), Store(tmp_path / "file" / "below"))


def test_only_runs_one_step(toy_folder: Path) -> None:
    store, recipe = Store(), load(toy_folder / "toy.yaml")
    with pytest.raises(ConfigError, match="after clean"):
        run(recipe, store, RunOptions(only="train"))
    with pytest.raises(ConfigError, match="did you mean 'clean'"):
        run(recipe, store, RunOptions(only="claen"))
    assert [one.step for one in run(recipe, store, RunOptions(only="clean"))] == ["clean"]
    assert [one.step for one in run(recipe, store, RunOptions(only="train"))] == ["train"]


def test_unknown_device_is_told_before_work(toy_folder: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(UsageError, match="--device cuda"):
        run(load(toy_folder / "toy.yaml"), Store(), RunOptions(device="cuda"))


def test_stage_contracts_are_checked() -> None:
    with pytest.raises(ConfigError, match="unknown kind"):
        stage("x", produces="modle")
    with pytest.raises(ConfigError, match="unknown relation"):
        Input("model", "stolen_from")
    untyped = stage("x", produces="model")(lambda config, work: {})
    with pytest.raises(ConfigError, match="no dataclass"):
        _ = untyped.config_type


def test_a_stage_whose_package_is_missing_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy_stage.py").write_text("import pyarrow_absent\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(catalogue.STAGES, "toy.needy", "needy_stage:run")
    monkeypatch.setitem(__import__("nacre.lazy", fromlist=["EXTRAS"]).EXTRAS, "pyarrow_absent", "data")
    with pytest.raises(MissingDependency, match=r"nacre\[data\]"):
        catalogue.find("toy.needy")


def test_trap_55_a_run_refuses_a_changed_artifact_of_another_recipe(toy_folder: Path) -> None:
    store = Store()
    run(load(toy_folder / "toy.yaml"), store, RunOptions(only="clean"))
    edit(toy_folder, "name: toy", "name: other")
    path = edit(toy_folder, "inputs: {data: clean}\n    config", "inputs: {data: toy/clean@1}\n    config")
    assert make(load(path), store).steps[1].state == "run"
    (store.folder("toy/clean", 1) / "report.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"toy/clean@1: the file report\.json was changed"):
        run(load(path), store)
    assert store.names() == ["toy/clean"]
