"""YAML as people mean it: the scalars of YAML 1.2, duplicate keys refused, errors that name line and remedy.

PyYAML follows YAML 1.1, where `2e-4` is a string, `no` is false, `1:30` is ninety and `2026-01-01` is a date.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode

from nacre.errors import ConfigError


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own way to override)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise ConstructorError(None, None, f"the key {key!r} is not a string", key_node.start_mark)
            if key in seen:
                raise ConstructorError(
                    None, None, f"{key!r} stands twice, in line {seen[key]} too", key_node.start_mark
                )
            seen[key] = line
        return super().construct_mapping(node, deep)


def _scalar(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_scalar("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_scalar("int", r"^[-+]?(?:0|[1-9][0-9_]*)$", "-+0123456789")
_scalar(
    "float",
    r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
    "-+0123456789.",
)
_scalar("null", r"^(?:~|null|Null|NULL|)$", "~nN")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^$"), [""])
_scalar("merge", r"^(?:<<)$", "<")


def load(path: Path) -> Any:
    """The plain values of a YAML file; raises ConfigError on anything that is not clean UTF-8 YAML."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist", remedy=_nearby(path)) from None
    except (IsADirectoryError, PermissionError) as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", remedy="give the path of a YAML file") from None
    return loads(_decode(data, path), str(path))


def loads(text: str, where: str) -> Any:
    """The plain values of a YAML text. `where` is named in errors."""
    try:
        values = yaml.load(text, _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}, line {mark.line + 1}" if mark else where
        problem = error.problem or str(error)
        if "'\\t'" in problem or "tab" in problem:
            raise ConfigError(f"{place}: a tab is used as indentation", remedy="indent with spaces") from None
        raise ConfigError(f"{place}: {problem}", remedy="correct this line") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        what = f"{where}, line {line}: the control character #x{error.character:04x}"
        raise ConfigError(what, remedy="take it out; the file must be plain UTF-8 text") from None
    if _holds_itself(values, ()):
        raise ConfigError(f"{where}: an alias stands inside what it names", remedy="write the values out") from None
    return values


def _holds_itself(value: Any, around: tuple[int, ...]) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return id(value) in around or any(_holds_itself(one, (*around, id(value))) for one in inner)


def _decode(data: bytes, path: Path) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ConfigError(f"{path} is UTF-16", remedy=f"iconv -f UTF-16 -t UTF-8 {path} > new.yaml")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            data.decode("gb18030")
        except UnicodeDecodeError:
            guess, remedy = "", "save it as UTF-8"
        else:
            guess, remedy = "; it may be GB18030", f"iconv -f GB18030 -t UTF-8 {path} > new.yaml"
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 at byte {error.start}{guess}", remedy=remedy) from None


def _nearby(path: Path) -> str:
    folder = path.parent
    near = sorted(folder.glob("*.y*ml")) if folder.is_dir() else []
    return f"in {folder} there are: {', '.join(one.name for one in near)}" if near else "check the path"
