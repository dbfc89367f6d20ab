"""Writes what a deployment needs into a folder, filled in from the gateway's config. Nothing is overwritten."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import nacre
from nacre.errors import UsageError
from nacre.lifecycle.serve import config as serve_config
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


def write(folder: Path, deployment: Deployment) -> list[Path]:
    """The files written, into a folder that is new or empty; raises ConfigError where the config does not hold."""
    loaded = serve_config.load(deployment.config)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty", remedy="name a new folder: --to deploy")
    folder.mkdir(parents=True, exist_ok=True)
    text = deployment.config.read_text(encoding="utf-8-sig")
    values = {
        "version": nacre.__version__, "port": str(loaded.listen.port), "image": deployment.image,
        "least": str(deployment.least), "most": str(deployment.most), "config": _INSTALLED,
        "program": shutil.which("nacre") or f"{sys.prefix}/bin/nacre",
        "grace": str(round(loaded.bounds.drain_s) + _BEYOND_DRAIN_S),
        "config_text": "\n".join(f"    {line}".rstrip() for line in text.splitlines()),
    }  # fmt: skip
    makers: dict[str, Callable[[], str]] = {
        CONFIG: lambda: text,
        "alert-rules.yaml": lambda: _file("alert-rules.yaml"),
        "dashboard-en.json": lambda: json.dumps(dashboard("en"), ensure_ascii=False, indent=1) + "\n",
        "dashboard-zh.json": lambda: json.dumps(dashboard("zh"), ensure_ascii=False, indent=1) + "\n",
        "Dockerfile": lambda: _filled("Dockerfile", values),
        "kubernetes.yaml": lambda: _filled("kubernetes.yaml", values),
        "nacre-gateway.service": lambda: _filled("nacre-gateway.service", values),
        "ray-serve.yaml": lambda: _filled("ray-serve.yaml", values),
    }
    written = []
    for name, make in makers.items():
        (folder / name).write_text(make(), encoding="utf-8")
        written.append(folder / name)
    return written


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
