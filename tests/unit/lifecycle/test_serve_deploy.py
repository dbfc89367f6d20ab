"""What a deployment is written from: every metric it asks for exists, every file parses, numbers are the config's."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from gateway_kit import config_for, gateway_at, upstream_model

from nacre.cli.main import main
from nacre.errors import ConfigError, UsageError
from nacre.lifecycle.serve.contract import Entry, Meters
from nacre.lifecycle.serve.deploy.dashboard import dashboard
from nacre.lifecycle.serve.deploy.write import Deployment, warnings, write
from nacre.lifecycle.serve.watch.meters import Metrics

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
    with pytest.raises(UsageError, match="exists"):
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


def test_the_parts_of_the_manifest_fit_each_other(tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all(written(tmp_path)["kubernetes.yaml"]))
    kinds = {(one["apiVersion"], one["kind"]) for one in documents}
    assert kinds == {
        ("v1", "ConfigMap"), ("apps/v1", "Deployment"), ("v1", "Service"), ("policy/v1", "PodDisruptionBudget"),
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
    }  # fmt: skip
    config, deployment, service, budget, scaler = documents
    template = deployment["spec"]["template"]
    labels, pod = template["metadata"]["labels"], template["spec"]
    container = pod["containers"][0]
    for selector in (deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"],
                     budget["spec"]["selector"]["matchLabels"]):  # fmt: skip
        assert selector.items() <= labels.items()
    ports = {one["name"] for one in container["ports"]}
    assert service["spec"]["ports"][0]["targetPort"] in ports
    assert {container[f"{one}Probe"]["httpGet"]["port"] for one in ("readiness", "liveness")} <= ports
    assert {container[f"{one}Probe"]["httpGet"]["path"] for one in ("readiness", "liveness")} == {"/readyz", "/healthz"}
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    assert pod["volumes"][0]["configMap"]["name"] == config["metadata"]["name"]
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"]  # the autoscaler's
    quantities = [q for one in container["resources"].values() for q in one.values()]
    assert all(re.fullmatch(r"[0-9]+(m|Mi|Gi)?", one) for one in quantities)


def test_rules_are_whole_and_ask_for_labels_that_are_there(tmp_path: Path) -> None:
    rules = yaml.safe_load(written(tmp_path)["alert-rules.yaml"])["groups"][0]["rules"]
    assert len({one["alert"] for one in rules}) == len(rules)
    known = {
        family.name: set(family.names) | {"le"} for family in Metrics(["mini"])._families
    }  # fmt: skip
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert set(rule["annotations"]) == {"summary", "summary_zh"}
        for left, right in ("()", "{}", "[]"):
            assert rule["expr"].count(left) == rule["expr"].count(right)
        for name in METRIC.findall(rule["expr"]):
            names = known.get(re.sub(r"_(bucket|sum|count)$", "", name))
            by = {one.strip() for group in re.findall(r"by \(([^)]*)\)", rule["expr"]) for one in group.split(",")}
            asked = set(re.findall(rf"{name}{{(\w+)", rule["expr"]))
            assert names is None or by | asked <= names, (rule["alert"], by, asked)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit_is_understood_by_systemd(tmp_path: Path) -> None:
    written(tmp_path)
    unit = tmp_path / "deploy" / "nacre-gateway.service"
    ended = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


# --- the command


def test_the_command_lists_writes_and_does_not_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, to = tmp_path / "mine.yaml", tmp_path / "to"
    config.write_text(CONFIG, encoding="utf-8")
    words = ["serve", "deploy", str(config), "--to", str(to)]
    assert main(["serve", "deploy", "--list", "--json"]) == 0
    listed = {one["name"]: one["files"] for one in json.loads(capsys.readouterr().out)["sets"]}
    assert main([*words, "--only", "alerts, dashboard"]) == 0
    assert sorted(one.name for one in to.iterdir()) == sorted(listed["alerts"] + listed["dashboard"])
    (to / "alert-rules.yaml").write_text("mine", encoding="utf-8")
    capsys.readouterr()
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert (to / "alert-rules.yaml").read_text(encoding="utf-8") == "mine"
    assert not (to / "kubernetes.yaml").exists()
    assert main([*words, "--force", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert sorted(said["written"]) == sorted(str(to / name) for files in listed.values() for name in files)
    assert "redis" in " ".join(said["warnings"])
    assert "groups:" in (to / "alert-rules.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("more", "remedy"),
    [
        (["--only", "alrts"], "did you mean 'alerts'"),
        (["--only", ","], "--only config,"),
        (["--least", "0"], "--least 2"),
        (["--image", "a b"], "--image"),
        (["--froce"], "--force"),
    ],
)
def test_the_command_says_what_is_wrong(
    more: list[str], remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    assert main(["serve", "deploy", str(config), "--to", str(tmp_path / "to"), *more]) == 2
    assert remedy in capsys.readouterr().err
    assert not (tmp_path / "to").exists()
    assert main(["serve", "deploy", str(config)]) == 2
    assert main(["serve", "deploy", "--to", "x"]) == 2
    (tmp_path / "file").touch()
    assert main(["serve", "deploy", str(config), "--to", str(tmp_path / "file")]) == 2
