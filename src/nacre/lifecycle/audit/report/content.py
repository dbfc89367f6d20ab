"""What a report shows of a pair, as plain rows: the same for a terminal and a page."""

from __future__ import annotations

from collections.abc import Callable

from nacre.lifecycle.audit.sentences import reason
from nacre.lifecycle.audit.verdict import STAGES, Pair
from nacre.lifecycle.audit.words import Words


def not_tested(pair: Pair, words: Words) -> list[str]:
    """Everything that was left open, a sentence each."""
    found = []
    for name in STAGES:
        stage = pair.stages.get(name)
        if name == "service":
            found.append(words("service_open"))
        elif stage is None:
            found.append(words("stage_open", stage=words(name), reason=words("not_asked")))
        elif stage.verdict == "UNTESTABLE":
            why = reason(stage.reason or stage.text, words.language)
            found.append(words("stage_open", stage=words(name), reason=why))
        else:
            found += [words("stage_open", stage=words(name), reason=one) for one in stage.not_tested if one]
    return found


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
