"""Reports in a browser: what an attacker writes into one does nothing, and ours look as the page does."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Open, Site

pytestmark = pytest.mark.slow
EVALUATION = "/reports/desk/evaluation@1/report.html"


def test_nothing_runs_in_a_report_that_came_from_elsewhere(tab: Open) -> None:
    page = (one := tab()).page
    one.expected = ("Blocked script execution", "Refused to", "sandboxed", "violates the following", "beacon", "/x ")
    asked: list[str] = []
    page.on("response", lambda answer: asked.append(answer.url))
    one.go(EVALUATION)
    page.wait_for_timeout(300)
    assert page.url.endswith(EVALUATION)  # no refresh led away
    for place in ("#send", "#script"):
        page.locator(place).click()
        page.wait_for_timeout(100)
    assert page.url.endswith(EVALUATION)
    assert page.locator("#text").inner_text() == "What the report says."
    assert not any("beacon" in url or "sign-out" in url or "/keys" in url for url in asked)
    assert page.context.cookies() == []


def test_in_its_frame_a_report_reaches_nothing_around_it(tab: Open, site: Site) -> None:
    page = (one := tab()).page
    one.expected = ("Blocked script execution", "Refused to", "sandboxed", "violates the following", "Unsafe", "/x ",
                    "chrome-error", "beacon")  # fmt: skip
    one.go("/ladders/ladder/desk/report@1")
    page.evaluate("address => { document.querySelector('iframe.report').src = address }", site.url + EVALUATION)
    frame = page.frame_locator("iframe.report")
    frame.locator("#text").wait_for()
    for place in ("#send", "#script", "#top"):
        frame.locator(place).click()
        page.wait_for_timeout(100)
    assert page.url.endswith("/ladders/ladder/desk/report@1")
    assert page.evaluate("window.__hit") is None


@pytest.mark.parametrize("path", ["/ladders/ladder/desk/report@1", "/audits/audit/desk/tuned@1"])
def test_a_report_in_its_frame_speaks_the_language_and_has_the_theme_of_the_page(
    tab: Open, pictures: Path, path: str
) -> None:
    page = (one := tab(locale="zh-CN", color_scheme="light")).page
    one.go("/settings?theme=dark&back=" + path)
    frame = page.frame_locator("iframe.report")
    assert frame.locator("html").get_attribute("lang") == "zh-CN"
    inner = page.frames[1]
    colours = [where.evaluate("getComputedStyle(document.body).backgroundColor") for where in (page, inner)]
    assert colours[0] == colours[1] == "rgb(20, 23, 26)"
    page.locator("iframe.report").scroll_into_view_if_needed()
    page.wait_for_timeout(500)  # a process of its own paints it
    page.screenshot(path=pictures / f"frame{path.replace('/', '-')}-zh-dark-1280.png")
    frame.locator("nav a").last.click()  # contents lead to a section, inside the frame
    assert page.url.endswith(path)
