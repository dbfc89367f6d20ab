"""What the stages say, in English and Chinese side by side: the template that `say` is given, then its Chinese.

A sentence without placeholders is found by itself. Both languages name the same placeholders with the same formats.
"""

from __future__ import annotations

from collections.abc import Mapping

MESSAGES: Mapping[str, str] = {
    "could not be tested: {reason}": "无法检验：{reason}",
    "{where}: {reason}": "{where}：{reason}",
}  # fmt: skip
