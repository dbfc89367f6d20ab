"""The gateway's config: what is wrong is named with its line and the closest key, and nothing starts."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest

from nacre.errors import ConfigError, InputError, UsageError
from nacre.lifecycle.serve.addresses import GuardedResolver, RefusedAddress, check_upstream
from nacre.lifecycle.serve.assemble import assemble, database_address, refuse_open_door
from nacre.lifecycle.serve.config import KeysConfig, Listen, StateConfig, load, parse
from nacre.lifecycle.serve.references import config_of, short_name

GOOD = """\
listen: {port: 9000}
models:
  gpt-4.1:
    upstream:
      address: https://api.example.com/v1
      model: gpt-4.1-2025
      key_variable: EXAMPLE_KEY
      abilities: [chat, stream, tools]
    price: {input_per_million: 2.0, output_per_million: 8.0}
  本地:
    local: {ref: intents/tune}
routes:
  smart: [gpt-4.1, 本地]
"""


def test_a_good_file() -> None:
    config = parse(GOOD, "g.yaml")
    assert config.names == ("gpt-4.1", "本地", "smart")
    assert config.models["gpt-4.1"].price.output_per_million == 8.0
    assert config.listen == Listen("127.0.0.1", 9000)
    assert "EXAMPLE_KEY" in repr(config)


def test_the_file_in_the_documentation_is_good() -> None:
    page = (Path(__file__).parents[3] / "docs" / "serve.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert [parse(one, "serve.md").names for one in blocks] == [("mini", "desk", "spare", "smart")]


WRONG = [
    ("adress: https://api.example.com/v1", "address: https://api.example.com/v1", 5, "did you mean 'address'"),
    ("tool]", "tools]", 8, "did you mean 'tools'"),
    ("output_per_milion", "output_per_million", 9, "did you mean 'output_per_million'"),
    ("  smart: [gpt-4, 本地]", "  smart: [gpt-4.1, 本地]", 13, "did you mean 'gpt-4.1'"),
    ("port: '9000'", "port: 9000", 1, "without quotes"),
    ("rout:", "routes:", 12, "did you mean 'routes'"),
    ("address: ftp://api.example.com", "address: https://api.example.com/v1", 5, "neither http nor https"),
    ("address: https://u:p@api.example.com", "address: https://api.example.com/v1", 5, "user or a password"),
    ("key_variable: sk-1234-secret", "key_variable: EXAMPLE_KEY", 7, "environment variable"),
    ("local: {}", "local: {ref: intents/tune}", 11, "required"),
    ('"a b":', "smart:", 12, "cannot name a model"),
]


@pytest.mark.parametrize(("wrong", "right", "line", "said"), WRONG)
def test_a_mistake_is_named_with_its_line_and_the_remedy(wrong: str, right: str, line: int, said: str) -> None:
    assert right in GOOD
    with pytest.raises(ConfigError) as raised:
        parse(GOOD.replace(right, wrong), "g.yaml")
    text = str(raised.value)
    assert said in text
    assert f"g.yaml, line {line}" in text
    assert raised.value.exit_code == 2
    assert "sk-1234-secret" not in text


def test_all_mistakes_are_told_at_once() -> None:
    text = GOOD.replace("port", "prt").replace("model:", "modle:").replace("output_per_million", "outputs")
    with pytest.raises(ConfigError, match="3 mistakes"):
        parse(text, "g.yaml")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "models: {}", "models:\n\ta: 1", "models: {a: {}}", "models: {a: {local: {ref: x}, local: {ref: y}}}"],
)
def test_what_is_no_config(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text, "g.yaml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "none.yaml")


def problems(address: str, *, private: bool = False) -> list[str]:
    return [str(one) for one in check_upstream(address, private, "x")]


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "[fd00::1]", "[fe80::1]",
     "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]", "[2002:a00:1::]", "0x0a000001", "167772161", "10.1", "012.0.0.1"],
)  # fmt: skip
def test_private_addresses_in_any_spelling_need_leave(host: str) -> None:
    assert problems(f"http://{host}:8000/v1")
    assert "allow_private" in problems(f"http://{host}:8000/v1")[0]
    assert not problems(f"http://{host}:8000/v1", private=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "224.0.0.1", "255.255.255.255"])
def test_addresses_that_are_no_machine_are_never_called(host: str) -> None:
    assert problems(f"http://{host}/v1", private=True)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8000/v1", "http://localhost:8000/v1", "http://[::1]/v1", "https://api.example.com/v1"]
)
def test_loopback_literals_and_public_names_need_none(address: str) -> None:
    assert not problems(address)


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "http://",
        "//x",
        "http://a b/",
        "http://x\r\nHost: y/",
        "http://x:99999/",
        "http://x/?q=1",
        "http://x/#m",
        "gopher://x",
    ],
)
def test_addresses_that_are_none(address: str) -> None:
    assert problems(address, private=True)


def test_a_name_that_leads_inside_is_refused_at_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the name was good when it was checked."""

    async def run(private: dict[str, bool], host: str, leads_to: str) -> str:
        resolver = GuardedResolver(private)

        async def answer(*_: object) -> list[dict[str, object]]:
            return [{"hostname": host, "host": leads_to, "port": 443, "family": 2, "proto": 6, "flags": 0}]

        monkeypatch.setattr(resolver._inner, "resolve", answer)
        return str((await resolver.resolve(host, 443))[0]["host"])

    for inside in ("10.0.0.1", "127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "fe80::1%eth0"):
        with pytest.raises(RefusedAddress):
            asyncio.run(run({"api.example.com": False}, "api.example.com", inside))
    assert asyncio.run(run({"api.example.com": True}, "api.example.com", "10.0.0.1")) == "10.0.0.1"
    assert asyncio.run(run({}, "api.example.com", "8.8.8.8")) == "8.8.8.8"
    with pytest.raises(RefusedAddress):
        asyncio.run(run({}, "localhost", "8.8.8.8"))


def test_others_are_let_in_with_keys_only() -> None:
    config = parse(GOOD, "g.yaml")
    out = replace(config, listen=Listen("0.0.0.0", 9000))
    refuse_open_door(config, False, "keys.db")
    refuse_open_door(out, True, "keys.db")
    with pytest.raises(UsageError, match="there are none") as raised:
        refuse_open_door(out, False, "keys.db")
    assert "nacre serve keys create" in raised.value.remedy
    with pytest.raises(ConfigError, match="reached by others"):
        refuse_open_door(replace(out, keys=KeysConfig(required=False)), True, "keys.db")
    for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3"):
        assert Listen(host).is_loopback
    for host in ("0.0.0.0", "::", "10.0.0.1", "gateway.example.com", ""):
        assert not Listen(host).is_loopback


def test_variables_that_hold_nothing_are_told_at_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="NO_SUCH_DB"):
        database_address(StateConfig(database_variable="NO_SUCH_DB"))
    config = replace(parse(GOOD, "g.yaml"), state=StateConfig(database=str(tmp_path / "no" / "x" / "g.db")))
    (tmp_path / "no").write_text("a file, not a folder")
    with pytest.raises(InputError):
        asyncio.run(assemble(config))


def test_a_folder_that_is_not_there_is_told_at_start(tmp_path: Path) -> None:
    config = replace(config_of([str(tmp_path / "nothing")]), state=StateConfig(database=str(tmp_path / "g.db")))
    with pytest.raises(InputError, match="nothing"):
        asyncio.run(assemble(config))


def test_references_become_models() -> None:
    config = config_of(["intents/tune@2", "https://api.example.com/v1?key_variable=K&offers=chat,stream#org/mini"])
    assert config.names == ("intents/tune", "org/mini")
    upstream = config.models["org/mini"].upstream
    assert upstream is not None
    assert (upstream.key_variable, set(upstream.abilities)) == ("K", {"chat", "tools", "json_schema", "stream"})
    assert short_name("/data/my model/") == "my-model"
    assert short_name("./out/poet") == "poet"
    assert short_name("model:minilm") == "minilm"
    with pytest.raises(UsageError, match="would be called"):
        config_of(["a/poet@1", "a/poet@2"])
    with pytest.raises(ConfigError, match="not a public address"):
        config_of(["http://10.0.0.1/v1#m"])
