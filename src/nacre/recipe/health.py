"""What `nacre doctor` looks at: the interpreter, the machine, torch, extras, data, caches, the store."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nacre
from nacre.errors import NacreError
from nacre.lazy import EXTRAS
from nacre.lineage.store import Store
from nacre.lineage.workspace import unfinished
from nacre.recipe import machine

# What one goes without when an extra's package is absent.
LOSSES = {
    "torch": "no training, no model of one's own can run",
    "pyarrow": "no Parquet files",
    "py3langid": "no language filter",
    "rjieba": "no Chinese word segmentation: whole-word masking falls on characters",
    "sklearn": "no classical baseline, no ROC curves",
    "pycrfsuite": "no classical tagger (CRF) at tier 0",
    "sacrebleu": "no BLEU and chrF",
    "rouge_score": "no ROUGE",
    "matplotlib": "no plots in reports",
    "pypinyin": "no rhymes of Chinese poems",
    "tensorboard": "no --tensorboard",
    "jinja2": "no prompt files, no chat templates",
    "urllib3": "no model can be called by its address",
    "pypdf": "no PDF can be read",
    "qdrant_edge": "no graph over large indexes: search stays exact",
    "gguf": "no quantised GGUF weights in audits; their headers are read without it",
    "qdrant_client": "no served vector database",
    "transformers": "no comparison with transformers; Nacre itself does not need it",
    "uvicorn": "no gateway (nacre serve)",
    "uvloop": "no gateway at full speed",
    "httptools": "no gateway",
    "aiohttp": "no upstreams behind the gateway",
    "aiohappyeyeballs": "no upstreams behind the gateway",
    "orjson": "no gateway (nacre serve)",
    "starlette": "no page (nacre page)",
    "psycopg": "no ledger in PostgreSQL",
    "redis": "no limits shared between replicas",
    "opentelemetry": "no traces of the gateway's requests",
}
_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "rouge_score": "rouge-score",
    "pycrfsuite": "python-crfsuite",
    "qdrant_edge": "qdrant-edge-py",
}
_LEAST_FREE_GIB = 2
_LEAST_MEMORY_MIB = 3_500


@dataclass(frozen=True)
class Check:
    """One finding: `state` is `ok`, `note` (works, something is missing) or `problem`; `remedy` where not ok."""

    area: str
    state: str
    what: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(store: Store, *, deep: bool = False) -> list[Check]:
    """Every check, in the order in which a person would ask. `deep` reads every byte of the store."""
    checks = [*_python(), *_machine(store), *_torch(), *_extras(), *_data(), *_caches()]
    return [*checks, *_store(store, deep)]


def _python() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield Check(
        "nacre", "ok", f"{nacre.__version__} at {Path(nacre.__file__).parent}, code {machine.code_digest()[:19]}"
    )


def _machine(store: Store) -> Iterator[Check]:
    described = machine.describe_machine("cpu")
    yield Check("platform", "ok", f"{described['platform']}, {described['processor']}, {described['cores']} cores")
    memory = described["memory_mib"]
    little = memory is not None and memory < _LEAST_MEMORY_MIB
    state, remedy = ("note", "use the recipes' smallest sizes") if little else ("ok", "")
    yield Check("memory", state, f"{memory:,} MiB" if memory else "the system does not tell", remedy)
    place = next(one for one in (store.root, *store.root.parents) if one.exists())
    free_gib = shutil.disk_usage(place).free / 2**30
    full = free_gib < _LEAST_FREE_GIB
    remedy = "free space, or set NACRE_HOME to a larger disk" if full else ""
    yield Check("disk", "problem" if full else "ok", f"{free_gib:,.1f} GiB free for {store.root}", remedy)


def _torch() -> Iterator[Check]:
    if find_spec("torch") is None:
        yield Check("torch", "note", f"not installed: {LOSSES['torch']}", "pip install 'nacre[train]'")
        return
    import torch

    yield Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("Apple GPU (mps)")
    yield Check("devices", "ok", ", ".join(["cpu", *names]))
    yield _bfloat16(torch.cuda.is_available() and torch.cuda.is_bf16_supported())
    compiler = next(
        (found for name in (os.environ.get("CXX"), "g++", "clang++") if name and (found := shutil.which(name))), None
    )
    if compiler:
        yield Check("compiler", "ok", f"{compiler}, for torch.compile")
    else:
        yield Check("compiler", "note", "no C++ compiler: torch.compile cannot be used", "install g++")


def _bfloat16(cuda: bool) -> Check:
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        flags = set()
    native = sorted(flags & {"avx512_bf16", "amx_bf16"}) or (["cuda"] if cuda else [])
    if native:
        return Check("bf16", "ok", f"in hardware: {', '.join(native)}")
    return Check("bf16", "note", "not in hardware: bf16 runs, slower than float32", "train with precision float32")


def _extras() -> Iterator[Check]:
    for package, extra in EXTRAS.items():
        if package == "torch":
            continue
        try:
            yield Check(f"extra {extra}", "ok", f"{package} {version(_DISTRIBUTIONS.get(package, package))}")
        except PackageNotFoundError:
            yield Check(
                f"extra {extra}", "note", f"{package} absent: {LOSSES[package]}", f"pip install 'nacre[{extra}]'"
            )


def _data() -> Iterator[Check]:
    from nacre.data import catalogue

    try:
        found = catalogue.found()
    except NacreError as error:
        yield Check("data", "problem", error.message, error.remedy)
        return
    where = sorted({str(path.parent) for path in found.values()})
    if found:
        yield Check("data", "ok", f"{len(found)} data sets in {', '.join(where)}")
    else:
        yield Check("data", "note", "no data sets beyond the embedded one", "nacre data list")


def _caches() -> Iterator[Check]:
    folder = Path(os.environ.get("NACRE_CACHE") or Path.home() / ".cache" / "nacre")
    models = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
    yield Check("cache", "ok", f"{folder}: {', '.join(models) or 'empty'}")


def _store(store: Store, deep: bool) -> Iterator[Check]:
    names = store.names()
    n_versions = sum(len(store.versions(name)) for name in names)
    yield Check("store", "ok", f"{store.root}: {len(names)} names, {n_versions} artifacts")
    for folder in unfinished(store):
        yield Check("store", "note", f"an unfinished step in {folder}", "run its recipe again, or delete the folder")
    yield from _damaged(store, names, deep)


def _damaged(store: Store, names: list[str], deep: bool) -> Iterator[Check]:
    for folder in store.unrecorded():
        yield Check("store", "problem", f"{folder} has no record", "restore lineage.json, or delete the folder")
    for name in names:
        for number in store.versions(name):
            try:
                product = store.get(name, number)
                if deep:
                    store.verify(product, deep=True)
            except NacreError as error:
                yield Check("store", "problem", error.message, error.remedy)
