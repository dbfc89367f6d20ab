"""Documentation matches code: generated pages are up to date, and every command that a page shows can be parsed."""

from __future__ import annotations

import importlib.util
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from nacre.cli.main import OBJECTS, VERBS
from nacre.cli.parser import VerbParser

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "README.zh-CN.md",
    "CONTRIBUTING.md",
    "docs/ladder.md",
    "docs/audit.md",
    "docs/align.md",
    "docs/masking.md",
    "docs/page.md",
    "docs/prompts.md",
    "docs/serve.md",
    "docs/serve-local.md",
    "docs/serve-operate.md",
]


def shown_commands() -> list[tuple[str, str]]:
    """(page, command line) of every line in a bash block that runs nacre."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL):
            found += [(page, line.partition("  #")[0]) for line in block.splitlines() if line.startswith("nacre ")]
    return found


@pytest.mark.parametrize(("page", "line"), shown_commands())
def test_every_shown_command_is_one_that_exists(page: str, line: str) -> None:
    verb, *arguments = shlex.split(line.removeprefix("nacre "))
    name = VERBS[verb][0]
    if arguments and (verb, arguments[0]) in OBJECTS:
        name = OBJECTS[verb, arguments.pop(0)]
    module = import_module(name)
    parser = VerbParser(verb, module.HELP)
    module.add_arguments(parser)
    args = parser.parse_args(arguments)
    if verb in ("run", "plan"):
        assert (ROOT / args.recipe).is_file(), f"{page}: {args.recipe} does not exist"
    if verb == "ladder" and args.task != "desk":
        assert (ROOT / args.task).is_file(), f"{page}: {args.task} does not exist"


def test_there_are_commands_to_check() -> None:
    assert len(shown_commands()) > 10


def test_generated_pages_are_up_to_date() -> None:
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(check=True) == 0, "run make docs"


def test_make_targets_named_in_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"`make ([a-z]+)", (ROOT / page).read_text(encoding="utf-8")))
        assert named <= targets, f"{page} names {named - targets}"


@pytest.mark.parametrize("page", PAGES)
def test_every_python_snippet_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NACRE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text(encoding="utf-8")
    for content, name in re.findall(r"```markdown\n((?=---\nname: (\S+)).*?)```", text, re.DOTALL):  # a prompt file
        Path("prompts").mkdir(exist_ok=True)
        Path("prompts", f"{name}.md").write_text(content, encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, page, "exec"), {})
        assert capsys.readouterr().out
