"""One task after another: what is kept of the earlier ones, and by what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from objective_kit import CHINESE, ENGLISH, kernel, tokenizer

from nacre.data.write import write_json, write_jsonl
from nacre.errors import ConfigError, DataError, TrainingError
from nacre.kernel import hf
from nacre.kernel.adapters.config import AdapterConfig
from nacre.recipe.catalogue import find
from nacre.recipe.stage import Work
from nacre.tiers.tune.continuing import ANCHOR_FILE, ContinualConfig, check_continual
from nacre.tiers.tune.continuing_worker import replayed, widened, with_task
from nacre.train.config import TrainConfig
from nacre.train.objective import prepare
from nacre.train.objectives.anchored import Anchor, Anchored
from nacre.train.objectives.classify import Classify
from nacre.train.objectives.classify_tasks import ClassifyTasks
from nacre.train.objectives.config import ClassifyConfig, ClassLoss

TASKS = {"language": ("en", "zh"), "length": ("short", "long")}


def base(folder: Path) -> Path:
    hf.save(kernel("bert", "none"), folder)
    tokenizer("bert").save(folder)
    return folder


def rows(task: str) -> list[dict[str, Any]]:
    texts = ENGLISH + CHINESE
    if task == "language":
        return [{"text": one, "label": "en" if one in ENGLISH else "zh"} for one in texts]
    return [{"text": one, "label": "short" if len(one) < 40 else "long"} for one in texts]


def data(folder: Path, task: str) -> Path:
    for split in ("train", "valid", "test"):
        write_jsonl(folder / f"{split}.jsonl", rows(task))
    write_json(folder / "labels.json", list(TASKS[task]))
    return folder


def config(steps: int = 4, **changes: Any) -> ContinualConfig:
    train = TrainConfig(max_steps=steps, batch_size=4, lr=3e-3, checkpoint_every=1, warmup=0.0, final="last")
    return ContinualConfig(**{"objective": ClassifyConfig(context=32), "train": train, "anchor_rows": 4} | changes)


def ran(how: ContinualConfig, inputs: dict[str, Path], place: Path) -> tuple[Path, dict[str, Any]]:
    check_continual(how, inputs)
    out = place / "out"
    for path in sorted(out.glob("*")) if out.is_dir() else ():
        path.unlink()
    out.mkdir(parents=True, exist_ok=True)
    return out, dict(find("tune.continual")(how, Work(inputs, out, place / "scratch", seed=1)))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("first")
    return ran(config(), {"model": base(place / "base"), "data": data(place / "data", "language")}, place)[0]


def test_the_head_grows_and_old_classes_keep_their_weights(first: Path) -> None:
    old = hf.load(first)
    new = widened(old, ["en", "zh", "short", "long"], config())
    assert old.classifier is not None
    assert new.classifier is not None
    assert new.config.labels == ("en", "zh", "short", "long")
    assert torch.equal(new.classifier.weight[:2], old.classifier.weight)
    assert torch.equal(new.classifier.bias[:2], old.classifier.bias)
    assert not torch.equal(new.classifier.weight[2:], old.classifier.weight)


def test_a_label_of_an_earlier_task_is_the_same_class_only_where_that_is_said() -> None:
    assert with_task([["a", "b"]], ["c", "d"], shared=False) == [["a", "b"], ["c", "d"]]
    assert with_task([["a", "b"]], ["b", "c"], shared=True) == [["a", "b"], ["c"]]
    assert with_task([["a", "b"]], ["b", "a"], shared=True) == [["a", "b"]]
    with pytest.raises(ConfigError, match="'b' is one of an earlier task"):
        with_task([["a", "b"]], ["b", "c"], shared=False)


def test_replay_draws_its_share_of_each_task_by_the_seed() -> None:
    earlier = [[{"text": f"{task} {number}"} for number in range(40)] for task in "ab"]
    drawn = replayed(0.25, earlier, 3)
    assert [row["text"][0] for row in drawn] == ["a"] * 10 + ["b"] * 10
    assert len({row["text"] for row in drawn}) == 20
    assert drawn == replayed(0.25, earlier, 3)
    assert drawn != replayed(0.25, earlier, 4)
    assert len(replayed(1.0, earlier, 3)) == 80
    assert len(replayed(0.01, earlier, 3)) == 2


def test_a_second_task_with_replay_and_anchor(tmp_path: Path, first: Path) -> None:
    inputs = {
        "model": first, "data": data(tmp_path / "two", "length"),
        "first_data": data(tmp_path / "one", "language"), "first_anchor": first,
    }  # fmt: skip
    out, metrics = ran(config(replay=0.5, ewc=10.0), inputs, tmp_path / "run")
    assert metrics["replayed_rows"] == 5
    assert metrics["examples"] == 14
    assert metrics["classes"] == 4
    assert json.loads((out / "tasks.json").read_text()) == [["en", "zh"], ["short", "long"]]
    assert hf.load(out).config.labels == ("en", "zh", "short", "long")
    history = json.loads((out / "training.json").read_text())["history"]
    assert any("penalty" in row for row in history)
    found = Anchor.load(out / ANCHOR_FILE)
    state = hf.load(out).state_dict()
    assert all(torch.equal(state[name], value) for name, value in found.values.items())


def test_a_strong_anchor_holds_the_weights_that_mattered(tmp_path: Path, first: Path) -> None:
    two, held = data(tmp_path / "two", "length"), Anchor.load(first / ANCHOR_FILE)
    moved = []
    for strength in (0.0, 1e5):
        inputs = {"model": first, "data": two} | ({"first_anchor": first} if strength else {})
        out, _ = ran(config(12, ewc=strength), inputs, tmp_path / f"run-{strength}")
        state = hf.load(out).state_dict()
        moved.append(
            sum(
                float((held.importance[name] * (state[name] - value) ** 2).sum()) for name, value in held.values.items()
            )
        )
    assert moved[1] < 0.1 * moved[0]


def test_classes_of_other_tasks_are_no_rivals_where_the_task_is_told(first: Path) -> None:
    """The loss and its gradient are those of a head over the task's classes alone, in float64."""
    how = ClassifyConfig(context=32)
    whole = widened(hf.load(first), ["en", "zh", "short", "long"], config()).double()
    both = ClassifyTasks(tokenizer("bert"), [["en", "zh"], ["short", "long"]], how)
    alone = Classify(tokenizer("bert"), ["short", "long"], how)
    examples, batch_of = prepare(both, rows("length")), torch.Generator()
    batch = both.collate(examples, batch_of)
    loss = both.loss(whole, batch)
    logits = alone.logits(whole, batch)[:, 2:]
    expected = torch.nn.functional.cross_entropy(logits, batch.labels - 2, reduction="sum")
    torch.testing.assert_close(loss.sum, expected, rtol=1e-9, atol=1e-9, check_dtype=False)
    body = [one for name, one in whole.named_parameters() if name.startswith("encoder")]
    for mine, theirs in zip(
        torch.autograd.grad(loss.sum, body, retain_graph=True), torch.autograd.grad(expected, body), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)
    assert whole.classifier is not None
    loss = both.loss(whole, batch)
    (gradient,) = torch.autograd.grad(loss.sum, whole.classifier.weight)
    assert gradient[:2].abs().max() == 0
    assert gradient[2:].abs().max() > 0


def test_the_penalty_is_the_published_one(first: Path) -> None:
    held, strength = Anchor.load(first / ANCHOR_FILE), 7.0
    found = hf.load(first).double()
    with torch.no_grad():
        for one in found.parameters():
            one.add_(0.01)
    inner = Classify(tokenizer("bert"), ["en", "zh"], ClassifyConfig(context=32))
    expected = strength / 2 * sum(float(one.double().sum()) * 0.01**2 for one in held.importance.values())
    measured = Anchored(inner, [held], strength).penalty(found).item()
    assert measured == pytest.approx(expected, rel=1e-3)


def test_an_adapter_leaves_the_body_as_it_was(tmp_path: Path) -> None:
    start = base(tmp_path / "base")
    inputs = {"model": start, "data": data(tmp_path / "data", "language")}
    out, metrics = ran(config(adapter=AdapterConfig("bottleneck")), inputs, tmp_path / "run")
    assert (out / "adapter").is_dir()
    assert not (out / ANCHOR_FILE).exists()
    before, after = hf.load(start).state_dict(), hf.load(out).state_dict()
    # PyTorch's own names of the body: a site stands beside each host.
    shared = [name for name in before if name in after and name.startswith(("embed", "encoder"))]
    assert len(shared) > 10
    assert all(torch.equal(before[name], after[name]) for name in shared)
    assert metrics["classes"] == 2


@pytest.mark.parametrize("remedy", ["plain", "ewc"])
def test_trap_44_killed_and_resumed_to_the_same_bytes(
    tmp_path: Path, first: Path, monkeypatch: pytest.MonkeyPatch, remedy: str
) -> None:
    inputs = {"model": first, "data": data(tmp_path / "two", "length")}
    how = config()
    if remedy == "ewc":
        inputs |= {"first_anchor": first, "first_data": data(tmp_path / "one", "language")}
        how = config(ewc=10.0, replay=0.3)
    whole, _ = ran(how, inputs, tmp_path / "whole")

    def killed(self: Classify, step: int) -> None:
        if step == 3:
            raise TrainingError("killed", remedy="again")

    with monkeypatch.context() as patched:
        patched.setattr(Classify, "watch", killed)
        with pytest.raises(TrainingError, match="killed"):
            ran(how, inputs, tmp_path / "killed")
    again, _ = ran(how, inputs, tmp_path / "killed")
    for file in sorted(path.name for path in whole.iterdir()):
        assert (whole / file).read_bytes() == (again / file).read_bytes(), file


def test_a_remedy_without_its_input_or_the_other_way_round_is_refused(tmp_path: Path, first: Path) -> None:
    one = data(tmp_path / "one", "language")
    with pytest.raises(ConfigError, match="replay is 0"):
        check_continual(config(), {"first_data": one})
    with pytest.raises(ConfigError, match="ewc is 0"):
        check_continual(config(), {"first_anchor": first})
    with pytest.raises(DataError, match=r"holds no anchor\.safetensors"):
        check_continual(config(ewc=1.0), {"first_anchor": one})
    with pytest.raises(ConfigError, match="replay is set"):
        check_continual(config(replay=0.1), {"model": first})
    with pytest.raises(ConfigError, match="ewc is set"):
        check_continual(config(ewc=1.0), {"model": first})
    with pytest.raises(ConfigError, match="nothing to hold"):
        config(ewc=1.0, adapter=AdapterConfig("bottleneck"))
    smooth = ClassifyConfig(context=32, loss=ClassLoss(label_smoothing=0.1))
    with pytest.raises(ConfigError, match="label smoothing"):
        config(compete="task", objective=smooth)
    inputs = {"model": base(tmp_path / "base"), "data": data(tmp_path / "two", "length"), "first_data": one}
    with pytest.raises(DataError, match="never learnt"):
        ran(config(replay=0.5), inputs, tmp_path / "run")
