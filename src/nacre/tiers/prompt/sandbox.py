"""The language of prompt templates: a small, bounded part of Jinja, so that a stranger's prompt file can be rendered.

What a template may do: print, `if`, `for`, `set`, comparisons, arithmetic, the filters and text methods listed here.
What it may not: reach Python's internals (Jinja's sandbox), read files or other templates, define macros, loop without
end, or grow a text without bound (Jinja's sandbox does not stop the last two). Imports jinja2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import StrictUndefined, Template, Undefined, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import SandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_TEMPLATE = 200_000  # characters of one template
MAX_TEXT = 4_000_000  # characters of any value on the way, and of the whole result
MAX_STEPS = 100_000  # turns of all loops of one rendering together
_STEP, _JOINED = "_nacre_step", "_nacre_joined"

_STATEMENTS = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign)
_FILTERS = (
    "abs capitalize default d dictsort escape e first float int items join last length count list lower map max min"
    " reject rejectattr replace reverse round select selectattr sort title tojson trim truncate unique upper wordcount"
)
_METHODS = {
    str: "capitalize casefold count endswith find isdigit lower lstrip rstrip split splitlines startswith strip title"
    " upper removeprefix removesuffix",
    dict: "get items keys values",
    list: "count index",
    LoopContext: "index index0 revindex revindex0 first last length previtem nextitem depth",
}
_ALLOWED = {kind: frozenset(names.split()) for kind, names in _METHODS.items()}


class PromptEnvironment(SandboxedEnvironment):
    """Jinja's sandbox with a short list of what is allowed, and bounds on time and memory."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,
            finalize=_printable,
        )
        self.filters = {name: self.filters[name] for name in _FILTERS.split()}
        self.filters |= {"join": _join, "replace": _replace, "tojson": _to_json}
        self.globals = {"range": _range}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return any(attr in names for kind, names in _ALLOWED.items() if isinstance(obj, kind))

    def wrap_str_format(self, value: Any) -> None:
        """Jinja would let `format` through, which can ask for a width of any size."""
        return

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            return _bounded(left + right)
        if not all(isinstance(one, int | float) for one in (left, right)):
            raise SecurityError(f"{operator} is for numbers only")
        if operator == "**" and (abs(left) > 1e6 or abs(right) > 64):
            raise SecurityError("a power is too large")
        return super().call_binop(context, operator, left, right)


def parse(environment: PromptEnvironment, source: str) -> nodes.Template:
    """The syntax tree of a template. Raises TemplateSyntaxError, for what is valid Jinja but not allowed as well."""
    if len(source) > MAX_TEMPLATE:
        raise TemplateSyntaxError(f"the template has {len(source):,} characters, at most {MAX_TEMPLATE:,} are read", 1)
    tree = environment.parse(source)
    for node in _walk(tree):
        if isinstance(node, nodes.Stmt | nodes.Helper) and not isinstance(
            node, (*_STATEMENTS, nodes.Operand, nodes.Pair, nodes.Keyword)
        ):
            name = type(node).__name__.lower()
            raise TemplateSyntaxError(f"{name} is not part of prompt templates", node.lineno)
        if isinstance(node, nodes.For) and node.recursive:
            raise TemplateSyntaxError("a recursive loop is not part of prompt templates", node.lineno)
        if isinstance(node, nodes.Filter) and node.name not in environment.filters:
            raise TemplateSyntaxError(f"no filter {node.name!r}", node.lineno)
    return tree


def undeclared(tree: nodes.Template) -> dict[str, int]:
    """Names that the template reads and does not set itself, with the line where each is first read."""
    from jinja2.meta import find_undeclared_variables

    free = find_undeclared_variables(tree) - {"range"}
    lines: dict[str, int] = {}
    for node in tree.find_all(nodes.Name):
        if node.name in free and node.ctx == "load":
            lines[node.name] = min(node.lineno, lines.get(node.name, node.lineno))
    return lines


def compiled(environment: PromptEnvironment, tree: nodes.Template, where: str) -> Template:
    """A template to be filled any number of times. Its frames in tracebacks carry the name `where`."""
    code = environment.compile(_Guard().visit(tree), name=where, filename=where)
    return environment.template_class.from_code(environment, code, environment.globals)


def filled(template: Template, values: Mapping[str, Any]) -> str:
    """The text of a template. Raises what Jinja raises."""
    pieces, size = [], 0
    for piece in template.generate({**values, _STEP: _counter(), _JOINED: _concatenate}):
        size += len(piece)
        if size > MAX_TEXT:
            raise SecurityError(f"the text grows beyond {MAX_TEXT:,} characters")
        pieces.append(piece)
    return "".join(pieces)


class _Guard(NodeTransformer):
    """Counts the turns of every loop, and bounds what `~` joins."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        counted = nodes.Output([_call(_STEP, [], node.lineno)], lineno=node.lineno)
        node.body = [counted, *node.body]
        if node.test is not None:  # a loop's filter runs for what the body never sees
            node.test = nodes.And(nodes.Compare(_call(_STEP, [], node.lineno), [_equals_blank()]), node.test)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call(_JOINED, node.nodes, node.lineno)


def _call(name: str, arguments: list[nodes.Expr], line: int) -> nodes.Expr:
    function = nodes.Name(name, "load", lineno=line)
    return nodes.Call(function, arguments, [], None, None, lineno=line)


def _equals_blank() -> nodes.Operand:
    return nodes.Operand("eq", nodes.Const(""))


def _walk(node: nodes.Node) -> Iterable[nodes.Node]:
    yield node
    for child in node.iter_child_nodes():
        yield from _walk(child)


def _counter() -> Callable[[], str]:
    steps = 0

    def step() -> str:
        nonlocal steps
        steps += 1
        if steps > MAX_STEPS:
            raise SecurityError(f"the loops of the template take more than {MAX_STEPS:,} turns")
        return ""

    return step


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > MAX_STEPS:
        raise SecurityError(f"range{bounds} has more than {MAX_STEPS:,} numbers")
    return found


def _bounded(value: Any) -> Any:
    if isinstance(value, str | list | tuple) and len(value) > MAX_TEXT:
        raise SecurityError(f"a value grows beyond {MAX_TEXT:,} characters or items")
    return value


def _printable(value: Any) -> Any:
    """What `{{ ... }}` prints: text and numbers. Python's way of writing a list or None is no part of a prompt."""
    if isinstance(value, Undefined | str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    raise SecurityError(f"a {type(value).__name__} cannot be printed as it is: use a loop, |join or |tojson")


def _concatenate(*parts: Any) -> str:
    return str(_bounded("".join(str(_printable(part)) for part in parts)))


def _join(value: Iterable[Any], d: str = "") -> str:
    parts, size = [], 0
    for part in value:
        parts.append(str(_printable(part)))
        size += len(parts[-1]) + len(d)
        if size > MAX_TEXT:
            raise SecurityError(f"a value grows beyond {MAX_TEXT:,} characters or items")
    return d.join(parts)


def _replace(text: str, old: str, new: str) -> str:
    if not isinstance(text, str):
        raise SecurityError("replace is for texts")
    if not old or len(text) + text.count(old) * len(new) > MAX_TEXT:
        raise SecurityError("replace needs a text to replace, and a result of bounded length")
    return text.replace(old, new)


def _to_json(value: Any) -> str:
    """Strict JSON in one line, non-ASCII characters as they are."""
    if _size(value, MAX_STEPS) <= 0:
        raise SecurityError(f"a value has more than {MAX_STEPS:,} parts: it is too large for |tojson")
    return str(_bounded(json.dumps(value, ensure_ascii=False, allow_nan=False)))


def _size(value: Any, left: int) -> int:
    """What is left of `left` after counting the parts of a value; it stops there, for lists may hold one list often."""
    left -= 1
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for one in inner:
        if left <= 0:
            break
        left = _size(one, left)
    return left
