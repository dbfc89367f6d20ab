"""What a report shows of a pair, as plain rows and sentences: the same for a terminal and a page."""

from __future__ import annotations

from collections.abc import Callable

from nacre.lifecycle.audit.said import Said, say, term
from nacre.lifecycle.audit.verdict import STAGES, Pair
from nacre.lifecycle.audit.words import Words, keys

_STOPS = (".", "!", "?", "。", "！", "？", "…")  # a sentence that ends with one is given no other


def not_tested(pair: Pair) -> list[Said]:
    """Everything that was left open, a sentence each; tests that could not run are told with what stood in the way."""
    found = []
    for name in STAGES:
        stage = pair.stages.get(name)
        if name == "service":
            found.append(say("Services: this audit compares files; what an endpoint answers was not asked."))
        elif stage is None:
            found.append(_open(name, "it was not asked for"))
        elif stage.verdict == "UNTESTABLE":
            found.append(_open(name, stage.reason or stage.text))
        else:
            found += [_open(name, one) for one in stage.not_tested if one]
            lacking = [one for one in stage.evidence if one.value is None]
            template = "{stage}, {test}: {reason}."
            found += [say(template, stage=term(name), test=name_of_test(one.test), reason=one.text) for one in lacking]
    return found


def notes(pair: Pair) -> list[Said]:
    """What the tests took as given or found on their way, by stage."""
    return [_open(name, one) for name, stage in pair.stages.items() for one in stage.notes if one]


def control(pair: Pair) -> Said:
    """What became of the control."""
    if pair.control.get("fired"):
        return say("An unrelated model of the reference's shape set the tests off: the finding is void.")
    if pair.control.get("ran"):
        return say("An unrelated model of the reference's shape went through the same tests; none fired.")
    return say("No control was run: {why}.", why=pair.control.get("why", ""))


def name_of_test(test: str) -> str:
    """The name of a test as a reader takes it in; its own where the table has none."""
    key = f"test_{test}"
    return term(key) if key in keys() else test


def cost_rows(
    pair: Pair, words: Words, duration: Callable[[float], str], size: Callable[[float], str]
) -> list[tuple[str, str]]:
    """What the pair took; nothing where it was not audited."""
    cost = pair.cost
    if not cost:
        return []
    read = words("of_bytes", read=size(cost["tensor_bytes_read"]), all=size(cost["tensor_bytes"]))
    rows = [(words("seconds"), duration(cost["seconds"])), (words("bytes_read"), read)]
    if cost.get("peak_memory_mib") is not None:
        rows.append((words("memory"), f"{cost['peak_memory_mib']:,.0f} MiB"))
    parts = [f"{words(name)} {duration(seconds)}" for name, seconds in cost["stage_seconds"].items()]
    return [*rows, (words("by_stage"), words.listed(parts))]


def _open(stage: str, reason: str) -> Said:
    template = "{stage}: {reason}" if reason.endswith(_STOPS) else "{stage}: {reason}."
    return say(template, stage=term(stage), reason=reason)
