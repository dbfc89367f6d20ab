from __future__ import annotations

from pathlib import Path

import pytest

from nacre.data.read import read
from nacre.errors import DataError


def test_front_matter_becomes_fields_and_the_body_text(tmp_path: Path) -> None:
    (tmp_path / "退货.md").write_text(
        "---\ntitle: 退货\nupdated: 2026-01-02\n---\n\n三十天内可退。\n\n第二段。\n", "utf-8"
    )
    assert list(read(tmp_path)) == [
        {"id": "退货", "title": "退货", "updated": "2026-01-02", "text": "三十天内可退。\n\n第二段。"}
    ]


def test_a_file_without_front_matter_is_all_text(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("# Title\n\nText with --- inside.\n", "utf-8")
    assert list(read(path)) == [{"id": "a", "text": "# Title\n\nText with --- inside."}]


@pytest.mark.parametrize("head", ["---\ntitle: x\n", "---\n- a\n---\n", "---\na: [\n---\n"])
def test_a_broken_front_matter_is_an_error_with_its_place(tmp_path: Path, head: str) -> None:
    path = tmp_path / "a.md"
    path.write_text(head + "text", "utf-8")
    with pytest.raises(DataError, match="front matter"):
        list(read(path))
