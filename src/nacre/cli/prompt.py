"""`nacre prompt LIBRARY|FILE`: prompt files listed, shown, searched, rendered, compared, and made from a request."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nacre.cli.parser import add_json_option, add_store_option
from nacre.cli.terminal import coloured, table
from nacre.errors import UsageError, closest

if TYPE_CHECKING:
    from nacre.engine.protocol import Prompt
    from nacre.tiers.prompt.file import PromptFile
    from nacre.tiers.prompt.library import Library
    from nacre.tiers.prompt.rewriting import Rewritten

HELP = """
Works with prompt files: Markdown with a front matter (name, version, inputs) and a template as body. LIBRARY is a
folder of them; without one the shipped prompts are meant. Without an option a library is listed and a file is shown.

examples:
  nacre prompt                                          the shipped prompts
  nacre prompt prompts/ --search "refund letter"
  nacre prompt --render translate-en --input text="Guten Tag"
  nacre prompt prompts/sort.md --render --input letter="Where is my card?"
  nacre prompt prompts/ --diff sort@1 sort@2
  nacre prompt --rewrite "summarise this for my boss"   by rules: what is open is asked back
  nacre prompt prompts/ --rewrite "..." --engine http://127.0.0.1:8080/v1#model --save
"""
_ACTIONS = ("search", "render", "diff", "rewrite")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("object", nargs="?", metavar="LIBRARY|FILE", help="a folder of prompt files, or one file")
    parser.add_argument("--search", metavar="WORDS", help="the prompts that hold any of these words, best first")
    parser.add_argument("--render", nargs="?", const="", metavar="NAME", help="fill a prompt in; no NAME for a FILE")
    parser.add_argument("--input", action="append", default=[], metavar="KEY=VALUE", help="an input of --render")
    parser.add_argument("--diff", nargs=2, metavar="NAME@N", help="what differs between two versions")
    parser.add_argument("--rewrite", metavar="TEXT", help="a request, made a structured prompt")
    parser.add_argument("--engine", metavar="REF", help="who rewrites (default: rules)")
    parser.add_argument("--save", action="store_true", help="add what --rewrite made to LIBRARY, as a new version")
    add_store_option(parser)
    add_json_option(parser)


def run(args: Namespace) -> int:
    _check(args)
    from nacre.tiers.prompt.file import load
    from nacre.tiers.prompt.library import Library

    path = Path(args.object) if args.object else None
    if path is not None and (path.is_file() or path.suffix == ".md"):
        prompt = load(path)
        if args.search is not None or args.diff or args.rewrite is not None:
            raise UsageError(f"{path} is one prompt", remedy="give the folder that it is in")
        return _render(prompt, args) if args.render is not None else _show(prompt, as_json=args.json)
    library = Library(path)
    if args.rewrite is not None:
        return _rewrite(library, args)
    if args.render is not None:
        return _render(library.get(args.render), args)
    if args.diff:
        return _diff(library, args)
    return _list(library, args)


def _check(args: Namespace) -> None:
    given = [f"--{name}" for name in _ACTIONS if getattr(args, name) is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} do not go together", remedy="give one of them")
    if args.input and args.render is None:
        raise UsageError("--input is for --render", remedy="nacre prompt --render NAME --input KEY=VALUE")
    if (args.engine or args.save) and args.rewrite is None:
        raise UsageError("--engine and --save are for --rewrite", remedy='nacre prompt --rewrite "..."')
    if args.save and not args.object:
        raise UsageError(
            "--save needs a library of your own", remedy='nacre prompt FOLDER --rewrite "..." --save makes one'
        )


def _list(library: Library, args: Namespace) -> int:
    found = library.list() if args.search is None else [one.prompt for one in library.search(args.search)]
    if args.json:
        print(json.dumps({"prompts": [one.to_dict() for one in found]}, ensure_ascii=False, indent=2))
        return 0
    if found:
        rows = [[one.name, str(one.version), one.head.language, ", ".join(one.inputs), one.head.about] for one in found]
        print(table(rows, ["name", "version", "language", "inputs", "about"]))
    if args.search is not None:
        print(f"\n{len(found)} prompts hold {args.search!r}")
    return 0


def _show(prompt: PromptFile, *, as_json: bool) -> int:
    print(json.dumps(prompt.to_dict(), ensure_ascii=False, indent=2) if as_json else "\n".join(_lines(prompt)))
    return 0


def _lines(prompt: PromptFile) -> Iterator[str]:
    yield f"{coloured(prompt.ref, 'bold')}  {prompt.head.about}"
    yield f"digest {prompt.digest}"
    if prompt.inputs:
        rows = []
        for name, one in prompt.inputs.items():
            given = "required" if one.required else f"default {json.dumps(one.default, ensure_ascii=False)}"
            rows.append([name, one.type, given, one.about])
        yield "\n" + table(rows, ["input", "type", "given", "about"])
    yield f"\n{prompt.body.strip()}"


def _render(prompt: PromptFile, args: Namespace) -> int:
    rendered = prompt.render(**_inputs(prompt, args.input))
    if args.json:
        print(json.dumps({"prompt": prompt.ref, "rendered": _plain(rendered)}, ensure_ascii=False, indent=2))
    elif isinstance(rendered, str):
        print(rendered)
    else:
        print("\n\n".join(f"{coloured(f'# {one.role}', 'bold')}\n{one.content}" for one in rendered))
    return 0


def _plain(rendered: Prompt) -> Any:
    if isinstance(rendered, str):
        return rendered
    return [{"role": one.role, "content": one.content} for one in rendered]


def _inputs(prompt: PromptFile, given: Sequence[str]) -> dict[str, Any]:
    """Values by the declared types: text as it is, everything else as JSON."""
    values: dict[str, Any] = {}
    for one in given:
        name, mark, text = one.partition("=")
        if not mark:
            raise UsageError(f"--input {one}: no =", remedy="write --input KEY=VALUE")
        if name in values:
            raise UsageError(f"--input {name} is given twice", remedy="give it once; a list as JSON: [1, 2]")
        known = prompt.inputs.get(name)
        if known is None:
            raise UsageError(f"{prompt.ref} has no input {name!r}", remedy=closest(name, prompt.inputs))
        try:
            values[name] = text if known.type == "text" else json.loads(text)
        except ValueError:
            remedy = f"give JSON: --input '{name}={json.dumps(_EXAMPLES[known.type])}'"
            raise UsageError(f"--input {name}: {text!r} is no {known.type}", remedy=remedy) from None
    return values


_EXAMPLES: dict[str, Any] = {"integer": 3, "number": 0.5, "boolean": True, "list": ["a", "b"], "object": {"a": "b"}}


def _diff(library: Library, args: Namespace) -> int:
    first, second = args.diff
    text = library.diff(first, second)
    if args.json:
        print(json.dumps({"first": first, "second": second, "diff": text}, ensure_ascii=False, indent=2))
    else:
        print(text.rstrip("\n") or f"{first} and {second} are the same")
    return 0


def _rewrite(library: Library, args: Namespace) -> int:
    from nacre.tiers.prompt.rewriting import rewrite

    if args.engine:
        from nacre.engine.room import EngineRoom
        from nacre.recipe.references import open_store

        folder = open_store(args.store, fetch=True).resolve(args.engine).path
        with EngineRoom().open(folder) as engine:
            found = rewrite(args.rewrite, engine)
    else:
        found = rewrite(args.rewrite)
    saved = library.save(found.prompt) if args.save else None
    if args.json:
        print(json.dumps({**found.to_dict(), "saved": saved.where if saved else None}, ensure_ascii=False, indent=2))
        return 0
    print("\n".join(_told(found, saved)))
    return 0


def _told(found: Rewritten, saved: PromptFile | None) -> Iterator[str]:
    yield (saved or found.prompt).source.decode().rstrip("\n")
    yield f"\nrewritten by: {found.method}"
    for remark in found.remarks:
        yield f"note: {remark}"
    if found.questions:
        yield "still open:"
        yield from (f"  - {one}" for one in found.questions)
    if saved:
        yield f"saved as {saved.ref}: {saved.where}"
