"""Messages in OpenAI's form, whatever dialect they came in; what is wrong with a conversation, told in few words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from nacre.errors import DataError

Message = dict[str, Any]

# Role names of other formats -> ours. `function_call` is an answer whose text is the call.
ROLES: Mapping[str, str] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "bing": "assistant", "bard": "assistant",
    "function_call": "function_call",
    "tool": "tool", "observation": "tool", "function": "tool", "tool_response": "tool",
}  # fmt: skip


class BadRow(DataError):
    """A row that is no conversation: `message` is the reason, the same words for the same reason."""


def bad(reason: str, remedy: str = "mend the row, or leave it out") -> NoReturn:
    """Raises BadRow."""
    raise BadRow(reason, remedy=remedy)


def message_of(given: Any, role: str = "role", content: str = "content") -> Message:
    """One turn in OpenAI's form; `role` and `content` name its fields. BadRow when it is none."""
    if not isinstance(given, Mapping) or not isinstance(given.get(role), str):
        bad(f"a turn without {role!r}", f"write every turn as {{{role!r}: ..., {content!r}: ...}}")
    ours = ROLES.get(given[role].lower())
    if ours is None:
        bad(f"the role {given[role]!r} is unknown", f"known: {', '.join(ROLES)}")
    text = text_of(given.get(content))
    message: Message = {"role": ours, "content": text}
    calls = given.get("tool_calls")
    if ours == "function_call":
        message, calls = {"role": "assistant", "content": ""}, _parsed(text, "a function call")
        calls = calls if isinstance(calls, list) else [calls]
    if calls:
        message["tool_calls"] = [_call(one) for one in _listed(calls, "tool_calls")]
    for name in ("name", "tool_call_id", "reasoning_content"):
        if isinstance(given.get(name), str):
            message[name] = given[name]
    if "trained" in given:
        if not isinstance(given["trained"], bool):
            bad("'trained' is not true or false")
        message["trained"] = given["trained"]
    return message


def text_of(content: Any) -> str:
    """The text of a content: a string, nothing, or OpenAI's list of text parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        other = next((part.get("type") for part in content if not isinstance(part.get("text"), str)), None)
        if other is None:
            return "".join(part["text"] for part in content)
        bad(f"a content of the type {other!r}, not text", "leave out turns with images or sound")
    bad(f"a content that is {type(content).__name__}, not text")


def tools_of(given: Any) -> list[dict[str, Any]] | None:
    """Tool descriptions in OpenAI's form, from a list or from JSON text; None where there are none."""
    if given is None or given == "":
        return None
    described = _parsed(given, "'tools'") if isinstance(given, str) else given
    tools = []
    for one in _listed(described, "'tools'"):
        if not isinstance(one, Mapping):
            bad("'tools' holds what is no object")
        tools.append(dict(one) if "function" in one else {"type": "function", "function": dict(one)})
    return tools or None


def _call(given: Any) -> dict[str, Any]:
    function = given.get("function", given) if isinstance(given, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        bad("a tool call without a name", 'write {"name": ..., "arguments": {...}}')
    arguments = function.get("arguments", function.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _parsed(arguments, "the arguments of a tool call") if arguments.strip() else {}
    call = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {"id": given["id"]} | call if isinstance(given.get("id"), str) else call


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        bad(f"{what} that is not JSON")


def _listed(value: Any, what: str) -> Sequence[Any]:
    if not isinstance(value, list):
        bad(f"{what} is no list")
    return value


# --- order


def check_prompt(messages: Sequence[Message]) -> None:
    """Raises BadRow unless this is what an assistant answers: turns in order, a user or a tool last."""
    _check_order(messages)
    if messages[-1]["role"] not in ("user", "tool"):
        bad("a prompt that does not end with the user", "end it with a turn of the user, the answer beside it")


def check_conversation(messages: Sequence[Message]) -> None:
    """Raises BadRow unless every turn is in order and the last is an answer."""
    _check_order(messages)
    last = messages[-1]["role"]
    if last != "assistant":
        bad(
            "ends with the user" if last == "user" else f"ends with a turn of {last}",
            "end it with an answer, or drop and count such rows",
        )
    if not any(one["role"] == "assistant" and one.get("trained") is not False for one in messages):
        bad("no answer is trained", "leave out trained: false on one answer")


def check_answer(text: str) -> None:
    """Raises BadRow when an answer holds nothing."""
    if not text.strip():
        bad("empty answer")


# What may follow what; "" is the beginning.
_AFTER: Mapping[str, tuple[str, ...]] = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant", "user"),
}


def _check_order(messages: Sequence[Message]) -> None:
    if not messages:
        bad("no turns")
    before, called = "", False
    for message in messages:
        role = message["role"]
        if role not in _AFTER[before]:
            where = f"{role} after {before}" if before else f"{role} first"
            bad(f"roles out of order: {where}", "one turn of the user, then one answer, from the first on")
        if role == "tool" and before == "assistant" and not called:
            bad("roles out of order: a tool's result that no call asked for")
        called = bool(message.get("tool_calls"))
        if role == "assistant" and not called:
            check_answer(message["content"])
        if role == "user" and not message["content"].strip():
            bad("empty turn of the user")
        before = role
