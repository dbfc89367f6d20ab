"""Task files: one YAML file says what is asked, on which rows, and what each tier may use. Strict as recipes are.

name: banking77
kind: classify                    # classify, tag, generate or rank
about: Which of the bank's intents a customer's message has.
language: en                      # or languages: [en, zh]
data: {train: data:banking77/train, valid: data:banking77/valid, test: data:banking77/test}

References are taken as written and resolved later, paths relative to the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nacre.engine.prices import Prices
from nacre.engine.room import Budget
from nacre.errors import ConfigError, NacreError, closest
from nacre.ladder.stages import Duplicates, Limit, Splits, TaskConfig
from nacre.lineage.store import check_name
from nacre.metrics.quality import METRICS, Kind
from nacre.recipe import yaml12
from nacre.recipe.config import Problem, plain, raise_problems, try_build
from nacre.tiers.rung import TIERS

EMBEDDED = Path(__file__).parent / "tasks"
DEFAULT_ENGINE = "model:minilm"
_SCHEME = "data:"


@dataclass(frozen=True)
class Data:
    """References of the rows: `train`, `valid` and `test`, or `all` of them in one; `corpus` for `rank`."""

    train: str | None = None
    valid: str | None = None
    test: str | None = None
    all: str | None = None
    corpus: str | None = None


@dataclass(frozen=True)
class _File:
    """The keys of a task file."""

    name: str
    kind: Kind
    about: str
    data: Data
    language: str | None = None
    languages: tuple[str, ...] = ()
    target_language: str = ""
    metric: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    splits: Splits = field(default_factory=Splits)
    limit: Limit = field(default_factory=Limit)
    duplicates: Duplicates = field(default_factory=Duplicates)
    descriptions: Mapping[str, str] | str = field(default_factory=dict)
    unlabelled: str | None = None
    corpus: str | None = None
    upstream: str | Mapping[str, Any] = DEFAULT_ENGINE
    base: str = DEFAULT_ENGINE
    prices: Prices = field(default_factory=Prices)
    budget: Budget = field(default_factory=Budget)
    tiers: Mapping[str, Mapping[str, Any] | Literal[False]] = field(default_factory=dict)
    seeds: int = 1


@dataclass(frozen=True)
class TaskFile:
    """A task as written. `task` is the config of the stages `task.prepare` and `task.test`, `data` their inputs.

    `upstream`: the engine that tiers 1 to 3 call, as a REF or as the content of an `engine.json`. `base`: what tier 4
    tunes. `corpus`: what tier 5 pretrains on besides `unlabelled`. `tiers`: each tier's config, None where it is left
    out by choice. `seeds`: how often trained tiers are repeated. `folder` is what relative paths start from.
    """

    task: TaskConfig
    data: Mapping[str, str]
    folder: Path
    corpus: str | None
    upstream: str | Mapping[str, Any]
    base: str
    prices: Prices
    budget: Budget
    tiers: Mapping[str, Mapping[str, Any] | None]
    seeds: int

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def kind(self) -> Kind:
        return self.task.kind

    @property
    def config(self) -> dict[str, Any]:
        """The config of `task.prepare` and `task.test` as plain values."""
        values: dict[str, Any] = plain(self.task)
        return values


def names() -> list[str]:
    """Tasks that come with the package."""
    return sorted(path.stem for path in EMBEDDED.glob("*.yaml"))


def load(path_or_name: str | Path) -> TaskFile:
    """The task of a file, or of the package by its name; raises ConfigError naming every mistake in its form."""
    path = _find(path_or_name)
    values = yaml12.load(path)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} holds no task", remedy="a task is a mapping with name, kind, about, data, ...")
    return parse(values, path.parent, str(path))


def parse(values: Mapping[str, Any], folder: Path, where: str) -> TaskFile:
    """A task from plain values; `folder` is what its paths are relative to."""
    given = {key: value for key, value in values.items() if value is not None}  # `budget:` with nothing after it
    tiers = given.get("tiers")
    if isinstance(tiers, Mapping):
        given["tiers"] = {key: {} if value is None else value for key, value in tiers.items()}
    file, problems = try_build(_File, given, where)
    if file is None:
        raise_problems(problems)
    assert file is not None  # no file means problems
    problems = [*_problems(file, where)]
    descriptions = _descriptions(file, folder, where, problems)
    task = _task(file, descriptions, where, problems)
    raise_problems(problems)
    assert task is not None  # no task means a problem
    data = {key: ref for key, ref in (vars(file.data) | {"unlabelled": file.unlabelled}).items() if ref is not None}
    return TaskFile(
        task=task,
        data=data,
        folder=folder,
        corpus=file.corpus,
        upstream=file.upstream,
        base=file.base,
        prices=file.prices,
        budget=file.budget,
        tiers={tier: None if one is False else one for tier, one in file.tiers.items()},
        seeds=file.seeds,
    )


def _find(given: str | Path) -> Path:
    """The file of a name of the package, else the path. A name is one word without an ending."""
    path = Path(given).expanduser()
    if isinstance(given, Path) or path.suffix or path.name != str(given) or path.is_file():
        return path
    embedded = EMBEDDED / f"{given}.yaml"
    if embedded.is_file():
        return embedded
    beside = Path("tasks") / f"{given}.yaml"
    if beside.is_file():
        raise ConfigError(f"no task {given!r} in the package", remedy=f"there is a file: give {beside}")
    raise ConfigError(
        f"no task {given!r} in the package", remedy=f"{closest(str(given), names())} (or give a task file's path)"
    )


def _problems(file: _File, where: str) -> list[Problem]:
    """What is wrong between the keys of a file."""
    found = [_name_problem(file.name, where), *_data_problems(file, where)]
    if not file.about.strip():
        found.append(Problem(f"{where}.about", "is empty", "say in a sentence what is asked"))
    if file.language is None and not file.languages:
        found.append(Problem(where, "no language", "language: en, or languages: [en, zh] for mixed texts"))
    if file.language is not None and file.languages and file.language not in file.languages:
        found.append(Problem(f"{where}.language", f"{file.language!r} is not among languages", "add it there"))
    if file.target_language and file.kind != "generate":
        found.append(
            Problem(f"{where}.target_language", f"a task of the kind {file.kind} writes nothing", "take it out")
        )
    for tier in file.tiers:
        if tier not in TIERS:
            found.append(Problem(f"{where}.tiers", f"no tier {tier!r}", closest(tier, TIERS)))
    found += _empty_problems(file, where)
    if file.seeds < 1:
        found.append(Problem(f"{where}.seeds", f"is {file.seeds}", "give 1 or more"))
    if isinstance(file.upstream, Mapping):
        found += _upstream_problems(file.upstream, f"{where}.upstream")
    return [one for one in found if one is not None]


def _empty_problems(file: _File, where: str) -> list[Problem]:
    """Keys that are given, but hold nothing."""
    references = {f"data.{key}": ref for key, ref in vars(file.data).items()}
    words = ("language", "metric", "upstream", "base", "corpus", "unlabelled", "descriptions")
    given = references | {key: getattr(file, key) for key in words}
    return [
        Problem(f"{where}.{key}", "is empty", "give a value, or take the key out")
        for key, value in given.items()
        if isinstance(value, str) and not value.strip()
    ]


def _upstream_problems(upstream: Mapping[str, Any], where: str) -> list[Problem]:
    """What is wrong with the settings of a served model; a key among them is not shown."""
    from nacre.engine.http_client import check_address
    from nacre.engine.openai_http import HttpSettings

    if any("key" in key and key != "key_variable" for key in upstream):
        return [Problem(where, "holds a key", "name the variable that has it: key_variable: NAME")]
    given = {key: value for key, value in upstream.items() if key != "engine"}
    settings, problems = try_build(HttpSettings, given, where)
    if settings is not None:
        try:
            check_address(settings.address)
        except ConfigError as error:
            problems.append(Problem(f"{where}.address", error.message, error.remedy))
    return problems


def _name_problem(name: str, where: str) -> Problem | None:
    try:
        check_name(name)
    except NacreError as error:
        return Problem(f"{where}.name", error.message, error.remedy)
    return None


def _data_problems(file: _File, where: str) -> list[Problem | None]:
    data, found = file.data, list[Problem | None]()
    if data.all is not None:
        if data.train or data.valid or data.test:
            found.append(Problem(f"{where}.data", "both all and single splits are given", "give all, or the splits"))
    else:
        if data.test is None:
            remedy = (
                "add data: {test: REF}, rows that nothing is trained on; or data: {all: REF} with splits: {test: 0.2}"
            )
            found.append(Problem(f"{where}.data", "no test rows", remedy))
        if data.train is None:
            found.append(Problem(f"{where}.data", "no training rows", "add data: {train: REF}"))
        if file.splits.test is not None:
            found.append(Problem(f"{where}.splits.test", "cuts data: {all: REF} only", "take it out"))
    if file.kind == "rank" and data.corpus is None:
        found.append(Problem(f"{where}.data", "nothing to rank", "add data: {corpus: REF}, rows with id and text"))
    if file.kind != "rank" and data.corpus is not None:
        remedy = "take it out; what tier 5 pretrains on is the key corpus of the task itself"
        found.append(Problem(f"{where}.data.corpus", f"a task of the kind {file.kind} ranks nothing", remedy))
    return found


def _task(file: _File, descriptions: Mapping[str, str], where: str, problems: list[Problem]) -> TaskConfig | None:
    languages = file.languages or ((file.language,) if file.language else ())
    try:
        return TaskConfig(
            name=file.name,
            kind=file.kind,
            about=" ".join(file.about.split()),
            metric=file.metric or METRICS[file.kind][0],
            language=file.language or (languages[0] if languages else "en"),
            languages=languages,
            target_language=file.target_language,
            descriptions=dict(descriptions),
            fields=file.fields,
            splits=file.splits,
            limit=file.limit,
            duplicates=file.duplicates,
        )
    except ConfigError as error:
        problems.append(Problem(where, error.message, error.remedy))
        return None


def _descriptions(file: _File, folder: Path, where: str, problems: list[Problem]) -> Mapping[str, str]:
    """Label -> what it means. A JSON file may give texts by language: a mixed task then shows those of its languages.

    The file is a mapping of labels to a text or to texts by language, or a list of objects with `label` and these.
    """
    if not isinstance(file.descriptions, str):
        return file.descriptions
    place = f"{where}.descriptions"
    try:
        path = _located(file.descriptions, folder)
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, Sequence) and not isinstance(content, str):
            content = {one["label"]: {key: text for key, text in one.items() if key != "label"} for one in content}
        wanted = file.languages or (file.language or "en",)
        return {str(label): _described(text, wanted) for label, text in content.items()}
    except NacreError as error:
        problems.append(Problem(place, error.message, error.remedy))
    except OSError as error:
        problems.append(Problem(place, f"{error.filename}: {error.strerror}", "give a JSON file of texts by label"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = '{"LABEL": "TEXT"}, or {"LABEL": {"en": "TEXT", "zh": "TEXT"}}'
        problems.append(Problem(place, f"{file.descriptions} is no table of descriptions: {error}", remedy))
    return {}


def _located(given: str, folder: Path) -> Path:
    if given.startswith(_SCHEME):
        from nacre.data.catalogue import resolve

        return resolve(given.removeprefix(_SCHEME)).path
    return folder / given


def _described(text: Any, languages: Sequence[str]) -> str:
    if isinstance(text, str):
        return text
    found = [str(text[language]) for language in languages if language in text]
    if not found:
        raise KeyError(f"no text in {' or '.join(languages)}")
    return " / ".join(found)
