"""What a deployment is written from: every metric it asks for exists, every file parses, numbers are the config's."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from gateway_kit import config_for, gateway_at, upstream_model

from nacre.errors import ConfigError, UsageError
from nacre.lifecycle.serve.contract import Entry, Meters
from nacre.lifecycle.serve.deploy.dashboard import dashboard
from nacre.lifecycle.serve.deploy.write import Deployment, warnings, write

CONFIG = """
listen: {host: 0.0.0.0, port: 8555}
bounds: {drain_s: 45}
models:
  mini: {upstream: {address: "https://api.example.com/v1"}}  # @port@ stays as it is
"""
ENTRY = Entry("r", 1.0, "k", "chat", "mini", "mini", "ok", 200, 1, 1, "upstream", 9, 0.1, 0.2, 0.1)
METRIC = re.compile(r"\b(?:nacre|process)_[a-z_]+\b(?!\()")


def written(tmp_path: Path, **more: Any) -> dict[str, str]:
    config = tmp_path / "mine.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    paths = write(tmp_path / "deploy", Deployment(config, **more))
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def rendered_names(folder: Path) -> set[str]:
    """Every sample that `/metrics` of a real gateway can show."""

    async def scraped() -> str:
        async with gateway_at(folder, config_for(mini=upstream_model("http://127.0.0.1:1/v1"))) as running:
            see_everything(running.gateway.parts.meters)
            async with running.session.get(f"{running.url}/metrics") as answer:
                return await answer.text()

    lines = asyncio.run(scraped()).splitlines()
    return {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}


def see_everything(watch: Meters) -> None:
    watch.ended(ENTRY)
    watch.ended(replace(ENTRY, cached=True))
    watch.ended(replace(ENTRY, money=None, prompt_tokens=None, completion_tokens=None, counted_by="nobody"))
    watch.queued("mini", 1, 1)
    watch.upstream("mini", None)
    watch.masked({"email": 1})


def test_every_metric_that_is_asked_for_exists(tmp_path: Path) -> None:
    names, files = rendered_names(tmp_path), written(tmp_path)
    rules = yaml.safe_load(files["alert-rules.yaml"])["groups"][0]["rules"]
    asked = {name for rule in rules for name in METRIC.findall(rule["expr"])}
    for language in ("en", "zh"):
        board = dashboard(language)
        asked |= {n for panel in board["panels"] for one in panel["targets"] for n in METRIC.findall(one["expr"])}
    assert len(asked) > 15
    assert asked <= names, asked - names
    for document in yaml.safe_load_all(files["kubernetes.yaml"]):
        for metric in document.get("spec", {}).get("metrics", []):
            assert metric["type"] == "Resource" or metric["pods"]["metric"]["name"] in names


def test_braces_and_brackets_of_queries_are_balanced() -> None:
    for panel in dashboard("zh")["panels"]:
        for target in panel["targets"]:
            for left, right in ("()", "{}", "[]"):
                assert target["expr"].count(left) == target["expr"].count(right), target["expr"]


def test_the_manifest_holds_the_configs_numbers(tmp_path: Path) -> None:
    files = written(tmp_path, image="registry.example.com/nacre:1", least=3, most=9)
    config, deployment, _service, _budget, scaler = yaml.safe_load_all(files["kubernetes.yaml"])
    assert yaml.safe_load(config["data"]["gateway.yaml"]) == yaml.safe_load(CONFIG)
    assert "@port@ stays as it is" in config["data"]["gateway.yaml"]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 60
    assert pod["containers"][0]["image"] == "registry.example.com/nacre:1"
    assert pod["containers"][0]["ports"][0]["containerPort"] == 8555
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (3, 9)
    assert "TimeoutStopSec=60" in files["nacre-gateway.service"]
    assert "EXPOSE 8555" in files["Dockerfile"]
    assert json.loads(files["dashboard-zh.json"])["title"] == "Nacre 网关"
    arguments = yaml.safe_load(files["ray-serve.yaml"])["applications"][0]["args"]
    assert arguments["least"] == 3


def test_no_placeholder_is_left(tmp_path: Path) -> None:
    for name, text in written(tmp_path).items():
        left = [one for one in re.findall(r"@[a-z_]+@", text) if one != "@port@"]
        assert not left, (name, left)


def test_nothing_is_overwritten_and_nothing_is_begun_with_a_bad_config(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(UsageError, match="is not empty"):
        written(tmp_path)
    (tmp_path / "bad.yaml").write_text("modles: {}", encoding="utf-8")
    with pytest.raises(ConfigError):
        write(tmp_path / "other", Deployment(tmp_path / "bad.yaml"))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("more", [{"least": 0}, {"least": 3, "most": 2}, {"image": "a b"}, {"image": "x\ny: z"}])
def test_numbers_and_names_that_cannot_be_meant(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Deployment(tmp_path, **more)


def test_what_does_not_fit_replicas_is_said(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(CONFIG.replace("0.0.0.0", "127.0.0.1"), encoding="utf-8")
    found = " ".join(warnings(Deployment(config)))
    assert "loopback" in found
    assert "redis" in found
    assert "PostgreSQL" in found


def test_ray_scales_by_queue_length() -> None:
    from nacre.lifecycle.serve.deploy.ray_app import RaySettings, build, deployment_options

    options = deployment_options(RaySettings("gateway.yaml", least=2, most=5, on_going=7))
    scaling = options["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"], scaling["target_ongoing_requests"]) == (2, 5, 7)
    with pytest.raises(ConfigError, match="many"):
        build({"config": "gateway.yaml", "most": "many"})
    with pytest.raises(ConfigError):
        build({"config": "gateway.yaml", "least": 3, "most": 2})
