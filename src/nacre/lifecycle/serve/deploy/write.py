"""Writes what a deployment needs into a folder, filled in from the gateway's config."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

import nacre
from nacre.errors import UsageError, closest
from nacre.lifecycle.serve import config as serve_config
from nacre.lifecycle.serve.config import ServeConfig
from nacre.lifecycle.serve.deploy.dashboard import dashboard

CONFIG = "gateway.yaml"
_INSTALLED = "/etc/nacre/gateway.yaml"
_BEYOND_DRAIN_S = 15  # on top of bounds.drain_s: closing what is open


@dataclass(frozen=True)
class Deployment:
    """What the files are filled in with. `config` is the gateway's config file, copied beside them."""

    config: Path
    image: str = f"nacre:{nacre.__version__}"
    least: int = 2
    most: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise UsageError(f"{self.least} to {self.most} replicas make no range", remedy="such as --least 2 --most 8")
        if not self.image or any(one.isspace() or not one.isprintable() for one in self.image):
            raise UsageError("the image has no usable name", remedy="such as --image registry.example.com/nacre:0.1.0")


@dataclass(frozen=True)
class FileSet:
    """Files that belong together."""

    about: str
    files: tuple[str, ...]


SETS: dict[str, FileSet] = {
    "config": FileSet("the gateway's config, as the others expect it beside them", (CONFIG,)),
    "alerts": FileSet("rules for Prometheus", ("alert-rules.yaml",)),
    "dashboard": FileSet("for Grafana, in English and Chinese", ("dashboard-en.json", "dashboard-zh.json")),
    "systemd": FileSet("a unit without privileges", ("nacre-gateway.service",)),
    "image": FileSet("what the manifest runs", ("Dockerfile",)),
    "kubernetes": FileSet("deployment, service, disruption budget, horizontal autoscaler", ("kubernetes.yaml",)),
    "ray": FileSet("Ray Serve, with replicas by queue length", ("ray-serve.yaml",)),
}


def write(
    folder: Path, deployment: Deployment, *, only: Sequence[str] | None = None, force: bool = False
) -> list[Path]:
    """The files of the sets in `only` (all of them for None), written into `folder`.

    Raises ConfigError where the config does not hold, UsageError for an unknown set and, without `force`, where one of
    the files exists; then nothing is written.
    """
    loaded = serve_config.load(deployment.config)
    names = _names(only)
    paths = [folder / name for name in names]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = [path for path in paths if path.exists()]
        if there and not force:
            raise UsageError(f"{there[0]} exists", remedy="name a new folder: --to deploy, or overwrite it: --force")
        makers = _makers(deployment, loaded)
        for path in paths:
            path.write_text(makers[path.name](), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{error.filename or folder} cannot be written: {error.strerror}",
            remedy="name a folder of yours: --to deploy",
        ) from None
    return paths


def _names(only: Sequence[str] | None) -> list[str]:
    """The files of some sets, in the order of the table."""
    for name in only or ():
        if name not in SETS:
            raise UsageError(f"there is no {name!r} to deploy", remedy=closest(name, SETS))
    names = [file for name, one in SETS.items() if only is None or name in only for file in one.files]
    if not names:
        raise UsageError("nothing is asked for", remedy=f"--only {','.join(SETS)}")
    return names


def _makers(deployment: Deployment, loaded: ServeConfig) -> dict[str, Callable[[], str]]:
    """What makes each file."""
    text = deployment.config.read_text(encoding="utf-8-sig")
    values = {
        "version": nacre.__version__, "port": str(loaded.listen.port), "image": deployment.image,
        "least": str(deployment.least), "most": str(deployment.most), "config": _INSTALLED,
        "program": shutil.which("nacre") or f"{sys.prefix}/bin/nacre",
        "grace": str(round(loaded.bounds.drain_s) + _BEYOND_DRAIN_S),
        "config_text": "\n".join(f"    {line}".rstrip() for line in text.splitlines()),
    }  # fmt: skip
    filled = ("Dockerfile", "kubernetes.yaml", "nacre-gateway.service", "ray-serve.yaml")
    return {
        CONFIG: lambda: text,
        "alert-rules.yaml": lambda: _file("alert-rules.yaml"),
        "dashboard-en.json": lambda: json.dumps(dashboard("en"), ensure_ascii=False, indent=1) + "\n",
        "dashboard-zh.json": lambda: json.dumps(dashboard("zh"), ensure_ascii=False, indent=1) + "\n",
        **{name: partial(_filled, name, values) for name in filled},
    }


def warnings(deployment: Deployment) -> list[str]:
    """What in the config does not fit several replicas or a container, in words."""
    loaded, found = serve_config.load(deployment.config), []
    if loaded.listen.is_loopback:
        found.append("listen.host is loopback: in a container nobody reaches it; write host: 0.0.0.0")
    if deployment.most > 1 and loaded.state.limits == "memory":
        found.append("state.limits is memory: each replica counts for itself; write limits: redis")
    if deployment.most > 1 and not loaded.state.database_variable and not _is_server(loaded.state.database):
        found.append("state keeps keys and ledger in a file: replicas need PostgreSQL (database_variable)")
    if any(model.local is not None for model in loaded.models.values()):
        found.append("local models need their folders in the image or on a volume, and more memory than 512Mi")
    return found


def _is_server(database: str | None) -> bool:
    return database is not None and database.startswith(("postgres://", "postgresql://"))


def _file(name: str) -> str:
    return (files("nacre.lifecycle.serve.deploy") / "files" / name).read_text(encoding="utf-8")


def _filled(name: str, values: dict[str, str]) -> str:
    """A template with every `@name@` replaced, in one pass: what is put in is not looked at again."""
    return re.sub(r"@([a-z_]+)@", lambda found: values[found[1]], _file(name))
