"""Every page in both languages, light and dark, wide and narrow: accessible, without overflow, without an error.

`$NACRE_SCREENSHOTS` keeps a picture of each; without it they are in pytest's temporary folder, and only some are taken.
"""

from __future__ import annotations

import os
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from conftest import Open

pytestmark = pytest.mark.slow
PAGES = (
    "/", "/artifacts", "/artifacts?text=nothing", "/artifacts/desk/tuned@1", "/artifacts/desk/data@1",
    "/artifacts/desk/evaluation@1", "/runs", "/ladders", "/ladders/ladder/desk/report@1",
    "/ladders/ladder/desk/report@1?with=ladder/desk/report@2", "/ladders/ladder/客服/report", "/audits",
    "/audits/audit/desk/tuned@1", "/chat", "/usage", "/keys", "/keys/new", "/nothing",
)  # fmt: skip
WHOLE = ("/reports/ladder/desk/report@1/report.html", "/reports/audit/desk/tuned@1/report.html")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
ALL = tuple(product(("en", "zh"), ("light", "dark"), (1280, 390)))
SOME = (("en", "light", 390), ("zh", "dark", 1280), ("zh", "light", 1280), ("en", "dark", 390))
AXE = {"iframes": False, "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa"]}}


@pytest.mark.parametrize(("language", "theme", "width"), ALL if os.environ.get("NACRE_SCREENSHOTS") else SOME)
def test_every_page_fits_its_window_and_says_no_error(
    tab: Open, pictures: Path, language: str, theme: str, width: int
) -> None:
    size = WIDE if width == 1280 else NARROW
    one = tab(locale={"en": "en-GB", "zh": "zh-CN"}[language], color_scheme=theme, viewport=size)
    one.expected = ("404",)  # the page that is not there
    too_wide, violations = [], []
    one.go("/runs")
    run = one.page.locator("main a", has_text="desk/training").first.get_attribute("href").partition("/page")[2]
    for path in (*PAGES, run):
        answer = one.go(path)
        assert answer.status == (404 if path == "/nothing" else 200), path
        inner = one.page.evaluate("document.documentElement.scrollWidth")
        if inner > width:
            too_wide.append((path, inner))
        if (language, theme, width) in SOME[:2]:  # axe takes longer than the page
            violations += [(path, *row) for row in found_by_axe(one.page)]
        one.page.screenshot(path=pictures / f"{name_of(path)}-{language}-{theme}-{width}.png", full_page=True)
    assert (too_wide, violations) == ([], [])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_whole_reports_are_accessible(tab: Open, theme: str) -> None:
    one = tab(color_scheme=theme, bypass_csp=True)  # axe is a script, and no script runs in a report
    one.expected = ("404",)  # the icon, which the policy keeps it from asking for
    for path in WHOLE:
        one.go(path)
        assert found_by_axe(one.page) == []


def found_by_axe(page: Any) -> list[tuple[str, str]]:
    """What axe finds: rule, and the first place."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    found = axe.Axe().run(page, options=AXE).response["violations"]
    return [(one["id"], one["nodes"][0]["html"][:160]) for one in found]


def name_of(path: str) -> str:
    return re.sub(r"\W+", "-", path).strip("-") or "overview"
