"""A mistake in every section of the gateway's file, through the command: line, remedy, exit code 2, nothing started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nacre.cli.main import main
from nacre.lifecycle.serve import server
from nacre.lifecycle.serve.config import parse

GOOD = """\
listen:
  host: 127.0.0.1
  port: 9000
  workers: 2
bounds:
  body_bytes: 1000
  drain_s: 5
keys:
  required: false
state:
  database: gateway.db
  limits: memory
models:
  mini:
    upstream:
      address: https://api.example.com/v1
      abilities: [chat, stream]
      timeouts:
        connect_s: 5
    price:
      input_per_million: 0.15
  desk:
    local:
      ref: intents/tune
      batch: 16
routes:
  smart: [mini, desk]
cache:
  keep_s: 3600
  shared: false
  semantic:
    model: mini
    threshold: 0.95
masking:
  default: mask
  kinds:
    email: block
  opaque: allow
  routes:
    chat:
      default: allow
      kinds:
        mobile: mask
watch:
  log:
    to: stderr
  alerts:
    error_rate: 0.05
    budget_used: [0.8]
    webhooks:
      team:
        format: json
        address: https://hooks.example.com/x
  traces:
    on: false
"""
# what stands in the file, what is written instead, its line, what is said
MISTAKES = [
    ("listen:", "lisen:", 1, "did you mean 'listen'"),
    ("  host: 127.0.0.1", "  hots: 127.0.0.1", 2, "did you mean 'host'"),
    ("port: 9000", "port: 90000", 3, "1 to 65535"),
    ("port: 9000", "port: nine", 3, "integer"),
    ("workers: 2", "workers: 0", 4, "one per core"),
    ("workers: 2", "workers: many", 4, "integer"),
    ("body_bytes: 1000", "body_bytes: -1", 6, "above 0"),
    ("drain_s: 5", "drains: 5", 7, "did you mean 'drain_s'"),
    ("required: false", "required: nope", 9, "boolean"),
    ("database: gateway.db", "database: postgresql://u:secret@h/n", 11, "database_variable"),
    ("limits: memory", "limits: memroy", 12, "did you mean 'memory'"),
    ("limits: memory", "limits: redis", 12, "redis_variable"),
    ("upstream:", "upstrem:", 15, "did you mean 'upstream'"),
    ("https://api.example.com/v1", "htps://api.example.com/v1", 16, "http"),
    ("[chat, stream]", "[chat, steam]", 17, "did you mean 'stream'"),
    ("connect_s: 5", "connect_s: 0", 19, "above 0"),
    ("input_per_million: 0.15", "input_per_milion: 0.15", 21, "did you mean 'input_per_million'"),
    ("batch: 16", "batch: 0", 25, "above 0"),
    ("[mini, desk]", "[mini, dsk]", 27, "did you mean 'desk'"),
    ("keep_s: 3600", "keeps: 3600", 29, "did you mean 'keep_s'"),
    ("keep_s: 3600", "keep_s: 0", 29, "above 0"),
    ("shared: false", "shared: 3", 30, "boolean"),
    ("model: mini\n    threshold", "model: mni\n    threshold", 32, "did you mean 'mini'"),
    ("threshold: 0.95", "threshold: 95", 33, "0.95 is usual"),
    ("threshold: 0.95", "treshold: 0.95", 33, "did you mean 'threshold'"),
    ("default: mask\n  kinds", "default: msk\n  kinds", 35, "did you mean 'mask'"),
    ("default: mask\n  kinds", "defualt: mask\n  kinds", 35, "did you mean 'default'"),
    ("email: block", "emial: block", 37, "did you mean 'email'"),
    ("email: block", "email: blok", 37, "did you mean 'block'"),
    ("opaque: allow", "opaque: alow", 38, "did you mean 'allow'"),
    ("    chat:", "    chatt:", 40, "did you mean 'chat'"),
    ("      default: allow", "      default: alow", 41, "did you mean 'allow'"),
    ("mobile: mask", "mobil: mask", 43, "did you mean 'mobile'"),
    ("masking:\n", "masking:\n  tagger: nacre.nowhere:tag\n", 35, "module:name"),
    ("to: stderr", "too: stderr", 46, "did you mean 'to'"),
    ("error_rate: 0.05", "error_rate: 5", 48, "0.05 for 5 %"),
    ("budget_used: [0.8]", "budget_used: [80]", 49, "[0.8, 1.0]"),
    ("format: json", "format: jsn", 52, "did you mean 'json'"),
    ("https://hooks.example.com/x", "https://hooks.example.com/x?token=1", 53, "address_variable"),
    ("on: false", "onn: false", 55, "did you mean 'on'"),
]


def test_the_file_without_a_mistake_is_good() -> None:
    assert parse(GOOD, "g.yaml").names == ("mini", "desk", "smart")


@pytest.mark.parametrize(("right", "wrong", "line", "remedy"), MISTAKES, ids=[one[1][:24] for one in MISTAKES])
def test_each_mistake_is_told_with_its_line_and_nothing_starts(
    right: str, wrong: str, line: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it was started")

    monkeypatch.setattr(server, "bind", never)
    assert GOOD.count(right) == 1
    file = tmp_path / "g.yaml"
    file.write_text(GOOD.replace(right, wrong), encoding="utf-8")
    assert main(["serve", str(file)]) == 2
    said = capsys.readouterr().err
    assert f"g.yaml, line {line}: " in said
    assert remedy in said
    assert "secret" not in said
    assert said.count("error: ") == 1


def test_several_mistakes_are_told_together_in_the_order_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "g.yaml"
    text = GOOD.replace("emial", "email").replace("port: 9000", "port: -1").replace("threshold: 0.95", "threshold: 9")
    file.write_text(text.replace("opaque: allow", "opaque: 7"), encoding="utf-8")
    assert main(["serve", str(file)]) == 2
    said = capsys.readouterr().err
    assert [said.index(f"line {line}: ") for line in (3, 33, 38)] == sorted(
        said.index(f"line {n}: ") for n in (3, 33, 38)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it begins with `models:`"),
        ("- a", "it begins with `models:`"),
        ("models: {}", "add one under `models`"),
        ("models: {a: {}}", "either `upstream` or `local`"),
        ("models:\n\ta: 1", "line 2"),
        ("models: {a: {local: {ref: x}}, a: {local: {ref: y}}}", "line 1"),
        ("models: &a {b: *a}", "write the values out"),
    ],
)
def test_files_that_are_no_config(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "g.yaml"
    file.write_text(text, encoding="utf-8")
    assert main(["serve", str(file)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
