from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_stages

from nacre import errors
from nacre.cli.main import VERBS, main
from nacre.recipe.failures import translate

PROGRAM = Path(toy_stages.__file__).with_name("toy_program.py")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_help_lists_every_verb(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, *words)
    assert (code, err) == (0, "")
    assert all(f"\n  {verb} " in out for verb in VERBS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("rnu",), "did you mean 'run'"),
        (("--verison",), "unknown option"),
        (("run", "x.yaml", "--dvice", "cpu"), "did you mean '--device'"),
        (("run",), "required: RECIPE"),
        (("run", "x.yaml", "--device", "tpu"), "invalid choice"),
        (("run", "x.yaml", "--device", "cdua"), "did you mean 'cuda'"),
        (("run", "x.yaml", "--set", "a=3"), "does not exist"),
        (("plan", "x.yaml", "--js"), "did you mean '--json'"),
        (("run", "absent.yaml"), "absent.yaml does not exist"),
        (("show", "absent"), "neither in the store"),
        (("trace", "absent"), "neither in the store"),
    ],
)
def test_wrong_usage_exits_2_with_a_remedy(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert "\n  remedy: " in err
    assert "Traceback" not in err


def test_a_verb_whose_module_is_absent_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VERBS, "later", ("nacre.cli.later", "not yet"))
    code, _, err = said(capsys, "later")
    assert code == 2
    assert "not part of this version" in err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--debug", "show", "absent"], ["show", "absent", "--debug"]):
        with pytest.raises(errors.ReferenceNotFound):
            main(words)


def test_a_fault_is_one_line_and_exits_1(
    capsys: pytest.CaptureFixture[str], toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy_stages.json, "dumps", lambda *_, **__: 1 / 0)
    code, _, err = said(capsys, "run", str(toy_folder / "toy.yaml"), "--quiet")
    assert code == 1
    assert "ZeroDivisionError" in err
    assert "--debug" in err


def error_classes(kind: type[errors.NacreError]) -> list[type[errors.NacreError]]:
    """The tree of errors.py; what other modules derive from it depends on what has been imported, and has its tests."""
    below = [one for one in kind.__subclasses__() if one.__module__ == errors.__name__]
    return [kind, *(deeper for one in below for deeper in error_classes(one))]


@pytest.mark.parametrize("kind", error_classes(errors.NacreError))
def test_every_error_has_its_exit_code(
    kind: type[errors.NacreError], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import nacre.cli.doctor

    def fail(args: object) -> int:
        raise kind("what happened", remedy="what to do")

    monkeypatch.setattr(nacre.cli.doctor, "run", fail)
    code, out, err = said(capsys, "doctor")
    expected = 3 if issubclass(kind, errors.GateRefused) else 2 if issubclass(kind, errors.InputError) else 1
    assert (code, out, err) == (expected, "", "error: what happened\n  remedy: what to do\n")


def test_what_the_machine_throws_is_translated(tmp_path: Path) -> None:
    import errno

    full = translate(OSError(errno.ENOSPC, "No space left on device", "x.bin"), tmp_path / "absent")
    assert isinstance(full, errors.ResourceError)
    assert "x.bin" in full.message
    assert isinstance(translate(MemoryError(), tmp_path), errors.ResourceError)
    text = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried 10 bytes"
    assert isinstance(translate(RuntimeError(text), tmp_path), errors.ResourceError)
    assert isinstance(translate(ModuleNotFoundError("x", name="sklearn.svm"), tmp_path), errors.MissingDependency)
    assert translate(ModuleNotFoundError("x", name="nacre_typo"), tmp_path) is None
    assert translate(OSError(errno.ENOENT, "x"), tmp_path) is None
    assert translate(RuntimeError("shape mismatch"), tmp_path) is None


def test_torch_out_of_memory_is_translated(tmp_path: Path) -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert isinstance(translate(caught.value, tmp_path), errors.ResourceError)
    assert isinstance(translate(torch.OutOfMemoryError("CUDA out of memory"), tmp_path), errors.ResourceError)


def test_run_show_trace_and_plan_tell_one_story(toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(toy_folder / "toy.yaml")
    code, out, err = said(capsys, "run", recipe)
    assert code == 0
    assert "toy/measure@1" in out
    assert "running train" in err
    assert "done train" in err
    code, out, _ = said(capsys, "run", recipe, "--json")
    steps = json.loads(out)["steps"]
    assert [step["state"] for step in steps] == ["cached"] * 3
    code, out, _ = said(capsys, "show", "toy/train", "--json", "--verify")
    shown = json.loads(out)
    assert (shown["digest"], shown["verified"]) == (steps[1]["digest"], True)
    code, out, _ = said(capsys, "trace", "toy/measure", "--json", "--verify")
    traced = json.loads(out)
    assert traced["parents"][0]["digest"] == steps[1]["digest"]
    code, out, _ = said(capsys, "plan", recipe, "--json")
    assert [step["artifact"] for step in json.loads(out)["steps"]] == [step["ref"] for step in steps]


def test_show_counts_rows_and_drops(toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", str(toy_folder / "toy.yaml"), "--quiet"])
    out = said(capsys, "show", "toy/clean")[1]
    assert "train.jsonl  3" in out
    assert "rows_in   4" in out


def test_show_reads_what_data_prepare_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"row number {index // 2} of this little text" for index in range(400)]
    (tmp_path / "rows.txt").write_text("\n".join(rows), encoding="utf-8")
    steps = "steps: {prep: {stage: data.prepare, inputs: {source: rows.txt}}}"
    (tmp_path / "prep.yaml").write_text(f"name: shown\n{steps}\n")
    assert main(["run", str(tmp_path / "prep.yaml"), "--quiet"]) == 0
    lines = [" ".join(line.split()) for line in said(capsys, "show", "shown/prep")[1].splitlines()]
    assert "dedup 400 200" in lines
    assert any(line.startswith("dropped 200: duplicate, such as row number") for line in lines)
    assert not any("{" in line for line in lines if "samples" in line)


def test_trace_unfolds_an_artifact_once(toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", str(toy_folder / "toy.yaml"), "--quiet"])
    out = said(capsys, "trace", "toy/measure")[1]
    assert out.count("raw.txt") == 1
    assert [line for line in out.splitlines() if "(parents above)" in line and "toy/clean@1" in line]


def test_references_that_are_nearly_right(toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", str(toy_folder / "toy.yaml"), "--quiet"])
    for ref, remedy in (
        ("toy", "under toy: toy/clean, toy/measure, toy/train"),
        ("toy/train@", "such as toy/train@1"),
        ("toy/train@one", "such as toy/train@1"),
        ("toy/trian", "did you mean 'toy/train'"),
    ):
        code, _, err = said(capsys, "show", ref)
        assert code == 2
        assert remedy in err


def test_trace_exits_1_when_bytes_changed(toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", str(toy_folder / "toy.yaml"), "--quiet"])
    (toy_folder / "raw.txt").write_text("changed")
    code, out, _ = said(capsys, "trace", "toy/train")
    assert code == 1
    assert "integrity: " in out
    assert "raw.txt holds other bytes" in out


def test_trace_diff_and_mermaid(toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(toy_folder / "toy.yaml")
    main(["run", recipe, "--quiet"])
    main(["run", recipe, "--quiet", "--set", "train.lr=1e-3"])
    out = said(capsys, "trace", "toy/measure", "--diff", "toy/measure@1")[1]
    assert "toy/train@1 -> toy/train@2\n  config lr 0.0002 -> 0.001" in out
    out = said(capsys, "trace", "toy/measure", "--mermaid")[1]
    assert out.startswith("flowchart BT\n")
    assert "-->|trained_on|" in out


def test_doctor_finds_what_is_broken(toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", str(toy_folder / "toy.yaml"), "--quiet"])
    capsys.readouterr()
    code, out, _ = said(capsys, "doctor", "--json", "--deep")
    report = json.loads(out)
    assert (code, report["healthy"]) == (0, True)
    from nacre.lineage.store import Store

    (Store().folder("toy/train", 1) / "weights" / "part-0.bin").write_bytes(b"x")
    (Store().folder("toy/clean", 1) / "lineage.json").unlink()
    code, out, _ = said(capsys, "doctor", "--json", "--deep")
    problems = [check["what"] for check in json.loads(out)["checks"] if check["state"] == "problem"]
    assert code == 1
    assert any("part-0.bin was changed" in one for one in problems)
    assert any("has no record" in one for one in problems)


def test_doctor_reports_a_wrong_data_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NACRE_DATA", "/nowhere/at/all")
    code, out, _ = said(capsys, "doctor")
    assert code == 1
    assert "/nowhere/at/all" in out
    assert "-> correct NACRE_DATA" in out


def test_doctor_knows_every_extra() -> None:
    from nacre.lazy import EXTRAS
    from nacre.recipe.health import LOSSES

    assert set(LOSSES) == set(EXTRAS)


def test_ctrl_c_is_one_line_that_says_how_to_go_on(toy_folder: Path) -> None:
    command = [sys.executable, str(PROGRAM), "run", "toy.yaml", "--set", "train.pause_s=5"]
    process = subprocess.Popen(command, cwd=toy_folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stderr is not None
    while b"running train" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert b"interrupted" in err
    assert b"to go on: nacre run toy.yaml --set train.pause_s=5" in err
    assert b"Traceback" not in err


def test_a_reader_that_leaves_is_no_error(toy_folder: Path) -> None:
    command = f"{sys.executable} {PROGRAM} run --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_long_list_of_names_is_cut() -> None:
    told = errors.closest("zzz", [f"layers.{index}.weight" for index in range(99)])
    assert told.endswith("and 75 more")
    assert len(told) < 1000
