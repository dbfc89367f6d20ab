"""Imports that wait until they are needed: optional dependencies, and what tables name as `module:name`."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from nacre.errors import MissingDependency

# Import name of an optional package -> the extra of Nacre that installs it.
EXTRAS: dict[str, str] = {
    "torch": "train",
    "pyarrow": "data",
    "py3langid": "data",
    "rjieba": "data",
    "sklearn": "evaluate",
    "pycrfsuite": "baseline",
    "sacrebleu": "evaluate",
    "rouge_score": "evaluate",
    "matplotlib": "evaluate",
    "pypinyin": "evaluate",
    "tensorboard": "tensorboard",
    "transformers": "transformers",
    "jinja2": "prompt",
    "urllib3": "engine",
    "pypdf": "retrieval",
    "qdrant_edge": "retrieval",
    "qdrant_client": "qdrant",
    "gguf": "audit",
    "uvicorn": "serve",
    "uvloop": "serve",
    "httptools": "serve",
    "aiohttp": "serve",
    "aiohappyeyeballs": "serve",
    "orjson": "serve",
    "starlette": "page",
    "psycopg": "postgres",
    "redis": "redis",
    "opentelemetry": "otel",
}


def missing(package: str) -> MissingDependency:
    """The error to raise when `package` (an import name) is needed and absent."""
    extra = EXTRAS.get(package)
    what = f"nacre[{extra}]" if extra else package
    return MissingDependency(
        f"the package {package!r} is needed here and is not installed", remedy=f"pip install '{what}'"
    )


def require(module: str) -> ModuleType:
    """Imports `module`; raises MissingDependency with the extra to install when its package is absent."""
    package = module.partition(".")[0]
    if find_spec(package) is None:
        raise missing(package)
    return import_module(module)


def named(target: str) -> Any:
    """What `module:name` names; the module is imported now."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
