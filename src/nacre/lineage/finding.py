"""What a lineage gives to look at, as a sentence with values: who shows findings may say them in another language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SENTENCES: Mapping[str, str] = {
    "not_recorded": "{audit} infers that {ref} derives from {parent}, which no record of it names",
    "not_confirmed": "{ref} is {basis} to be {relation} {parent}; {audit} does not confirm it ({verdict})",
    "both_ways": "an audit infers a parent that was itself made from {ref}: files do not say who was first",
    "circle": "{ref} stands on itself: its records were edited",
    "gone": "{ref} is no longer here; shown as it was recorded",
    "other_bytes": "{ref} holds other bytes ({now}) than when it was used ({then})",
    "file_missing": "{ref}: the file {file} is missing after the artifact was written ({folder})",
    "file_added": "{ref}: the file {file} was added after the artifact was written ({folder})",
    "file_changed": "{ref}: the file {file} was changed after the artifact was written ({folder})",
    "twin": "{ref} and {twin} were made the same way and differ in content: the step is not repeatable",
    "licence_none": "the licence of {ref} is unclear (none stated)",
    "licence_unclear": "the licence of {ref} is unclear ({licence})",
    "licence_noncommercial": "the licence of {ref} is noncommercial ({licence})",
    "licence_none_reaches": "the licence of {ref} is unclear (none stated); it reaches {root}",
    "licence_unclear_reaches": "the licence of {ref} is unclear ({licence}); it reaches {root}",
    "licence_noncommercial_reaches": "the licence of {ref} is noncommercial ({licence}); it reaches {root}",
    # of an edge, beside the artifact it leads to
    "unnamed": "no record names it",
    "unconfirmed": "{audit} does not confirm it: {verdict}",
}


@dataclass(frozen=True)
class Finding:
    """Something to look at: `kind` is `integrity`, `disagreement`, `missing`, `drift`, `unclear` or `noncommercial`.

    `text` says it in English. `sentence` is its name in `SENTENCES` with its `values`, and empty where an error's own
    message is the text.
    """

    kind: str
    ref: str
    text: str
    sentence: str = ""
    values: Mapping[str, Any] = field(default_factory=dict, compare=False)


def find(kind: str, about: str, sentence: str, /, **values: Any) -> Finding:
    """The finding on the artifact `about` that a sentence of `SENTENCES` says."""
    return Finding(kind, about, SENTENCES[sentence].format(**values), sentence, values)
