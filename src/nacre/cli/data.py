"""`nacre data list|get|check`: the catalogue of data sets, and of models that come as packages."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from nacre.cli.parser import add_json_option
from nacre.cli.terminal import size, table
from nacre.errors import UsageError

if TYPE_CHECKING:
    from nacre.data.catalogue import DataSet
    from nacre.progress import Progress

HELP = """
Lists the data sets of the catalogue with licence and place, gets one that can be downloaded, or compares one with its
checksums. Sets are looked for in $NACRE_DATA, in ../shared/data and in the cache. model:NAME means a model.

examples:
  nacre data list
  nacre data list zh                     sets whose name, task, language or subject has this word
  nacre data get shakespeare
  nacre data get model:minilm
  nacre data check banking77
  nacre data check                       every set that is here
"""
_MODEL = "model:"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "get", "check"), help="what to do")
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a data set, an alias, or model:NAME; a word to list by"
    )
    add_json_option(parser)


def run(args: Namespace) -> int:
    if args.action == "list":
        return _list(args.name, as_json=args.json)
    if args.action == "get" and args.name is None:
        raise UsageError("nacre data get: which set?", remedy="nacre data list")
    found = _get(args.name) if args.action == "get" else _check(args.name)
    if args.json:
        print(json.dumps({"sets": found}, ensure_ascii=False, indent=2))
        return 0
    done = "is here" if args.action == "get" else "matches its checksums"
    for one in found:
        print(f"{one['name']} {done}: {one['path']}")
        if one["remark"]:
            print(f"  note: {one['licence']}: {one['remark']}")
    return 0


def _list(word: str | None, *, as_json: bool) -> int:
    from nacre.data.catalogue import entries

    sets = [one for one in entries() if word is None or _mentions(one, word.casefold())]
    models = [
        one
        for one in _models()
        if word is None or word.casefold() in f"model:{one['name']} {one['licence']}".casefold()
    ]
    if as_json:
        print(json.dumps({"sets": [_plain(one) for one in sets], "models": models}, ensure_ascii=False, indent=2))
        return 0
    rows = [
        [
            one.name,
            one.aliases[0] if one.aliases else "",
            ",".join(one.languages),
            one.licence_class,
            size(one.n_bytes) if one.files else "",
            _place(one),
            one.about,
        ]
        for one in sets
    ]
    if rows:
        print(table(rows, ["name", "alias", "language", "licence", "size", "place", "about"]))
    present = sum(one.path is not None for one in sets)
    print(f"\n{len(sets)} sets, {present} here" + (f", by the word {word!r}" if word else ""))
    for model in models:
        place = model["path"] or f"not here: nacre data get model:{model['name']}"
        print(f"model:{model['name']}  {model['licence']}  {place}")
    return 0


def _get(name: str) -> list[dict[str, Any]]:
    if name.startswith(_MODEL):
        from nacre.data import models

        models.find(name.removeprefix(_MODEL), progress=_progress())
        return [one for one in _models() if one["name"] == name.removeprefix(_MODEL)]
    from nacre.data.catalogue import fetch

    return [_plain(fetch(name, _progress()))]


def _check(name: str | None) -> list[dict[str, Any]]:
    from nacre.data import catalogue, models

    if name is not None and name.startswith(_MODEL):
        models.check(name.removeprefix(_MODEL))
        return [one for one in _models() if one["name"] == name.removeprefix(_MODEL)]
    here = [one.name for one in catalogue.entries() if one.path is not None]
    progress = _progress()
    checked = []
    for number, one in enumerate([name] if name is not None else here, start=1):
        checked.append(_plain(catalogue.check(one)))
        progress.update(number, len(here) if name is None else 1, set=one)
    return checked


def _plain(one: DataSet) -> dict[str, Any]:
    """A set as a JSON object."""
    return {
        "name": one.name,
        "aliases": list(one.aliases),
        "task": one.task,
        "about": one.about,
        "languages": list(one.languages),
        "licence": one.licence,
        "licence_class": one.licence_class,
        "remark": one.remark,
        "source": one.source,
        "embedded": one.embedded,
        "downloadable": one.downloadable,
        "path": None if one.path is None else str(one.path),
        "files": [
            {"path": file.path, "rows": file.rows, "bytes": file.n_bytes, "sha256": file.sha256} for file in one.files
        ],
    }


def _models() -> list[dict[str, Any]]:
    from nacre.data import models

    return [
        {
            "name": model.name,
            "package": f"{model.package}=={model.version}",
            "licence": model.licence,
            "remark": None,
            "origin": model.origin,
            "path": str(path) if (path := models.place(model.name)) else None,
        }
        for model in models.CATALOGUE.values()
    ]


def _mentions(one: DataSet, word: str) -> bool:
    texts = [one.name, *one.aliases, one.task, one.about, one.licence_class, *one.languages]
    return any(word in text.casefold() for text in texts)


def _place(one: DataSet) -> str:
    if one.embedded:
        return "embedded"
    if one.path is not None:
        return "here"
    return "to get" if one.downloadable else "absent"


def _progress() -> Progress:
    from nacre.progress import Terminal

    return Terminal()
