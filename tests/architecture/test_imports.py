"""The shape of the code: layers, what a start-up imports, what the catalogues name, how long things are."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nacre.cli.main import VERBS
from nacre.recipe import catalogue

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "src" / "nacre"
HEAVY = ("torch", "numpy", "pydantic", "yaml", "tokenizers", "safetensors", "pyarrow", "sklearn", "transformers")
LONGEST_FUNCTION, LONGEST_FILE, MOST_PARAMETERS = 60, 400, 7
# Signatures that docs/decisions/0001-foundation.md fixes as they are.
FIXED = {"kernel/model.py forward", "train/loop.py train"}


def imported_by(code: str) -> set[str]:
    """The top-level packages that a fresh process has imported after running `code`."""
    listing = "import sys, json\nprint('\\n' + json.dumps(sorted({one.partition('.')[0] for one in sys.modules})))"
    script = f"{code}\n{listing}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def sources() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_layers_point_one_way() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"from nacre.cli.main import main\ntry:\n    main({arguments})\nexcept SystemExit:\n    pass"
    assert imported_by(code) & set(HEAVY) == set()


def test_plan_imports_no_model_library(tmp_path: Path) -> None:
    names = sorted(catalogue.STAGES)
    code = (
        "from nacre.recipe import catalogue, plan, run, references\nfrom nacre.cli import plan, run, show, trace\n"
        f"for name in {names}:\n    catalogue.find(name).config_type"
    )
    heavy = {"torch", "pyarrow", "sklearn", "transformers", "matplotlib"}
    assert imported_by(code) & heavy == set()


@pytest.mark.parametrize("name", sorted(catalogue.STAGES))
def test_catalogue_target_is_its_stage(name: str) -> None:
    found = catalogue.find(name)
    assert found.name == name
    assert found.about, f"{name} has no docstring"
    assert found.config_type


def test_every_stage_is_in_the_catalogue() -> None:
    written = set()
    for path in sources():
        for function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            for one in function.decorator_list:
                if isinstance(one, ast.Call) and isinstance(one.func, ast.Name) and one.func.id == "stage":
                    name = ast.literal_eval(one.args[0])
                    module = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
                    written.add((name, f"{module}:{function.name}"))
    assert written == set(catalogue.STAGES.items())


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_verb_module_keeps_its_contract(verb: str) -> None:
    from importlib import import_module
    from importlib.util import find_spec

    module_name, line = VERBS[verb]
    assert len(line) <= 90
    if find_spec(module_name) is None:
        pytest.skip(f"{module_name} has not landed")
    module = import_module(module_name)
    assert "examples:" in module.HELP
    assert f"nacre {verb}" in module.HELP
    assert all(callable(getattr(module, name)) for name in ("add_arguments", "run"))


def test_functions_and_files_stay_short() -> None:
    lengths = []
    for path in sources():
        text = path.read_text(encoding="utf-8")
        where = path.relative_to(SOURCE)
        assert len(text.splitlines()) <= LONGEST_FILE, f"{where} has {len(text.splitlines())} lines"
        for one in functions(ast.parse(text)):
            lengths.append(((one.end_lineno or one.lineno) - one.lineno + 1, f"{where}:{one.lineno} {one.name}"))
    longest = sorted(lengths, reverse=True)[:10]
    print("\n".join(f"{length:4} {where}" for length, where in longest))
    assert longest[0][0] <= LONGEST_FUNCTION, longest[0]


def test_parameters_stay_few() -> None:
    many = []
    for path in sources():
        for one in functions(ast.parse(path.read_text(encoding="utf-8"))):
            positional = [argument.arg for argument in (*one.args.posonlyargs, *one.args.args)]
            count = len([name for name in positional if name not in ("self", "cls")]) + len(one.args.kwonlyargs)
            if count > MOST_PARAMETERS and f"{path.relative_to(SOURCE).as_posix()} {one.name}" not in FIXED:
                many.append(f"{path.relative_to(SOURCE)}:{one.lineno} {one.name} takes {count}")
    assert not many, many


def test_no_vague_module_names() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [path for path in sources() if path.stem in vague] == []
