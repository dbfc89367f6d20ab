"""What people do on the page, in a real browser: look around, follow a run, try a rung, sign in, make a key."""

from __future__ import annotations

import re
from typing import Any

import pytest
from page_kit import HOSTILE
from page_store import append

from conftest import Open, Site

pytestmark = pytest.mark.slow
LADDER = "/ladders/ladder/desk/report@1"


def test_from_the_overview_to_an_artifact_and_along_the_graph_to_its_parent(tab: Open) -> None:
    page = (one := tab()).page
    one.go("/")
    page.get_by_role("navigation").first.get_by_role("link", name="Artifacts").click()
    page.locator("main a[href$='/artifacts/desk/tuned@1']").first.click()
    assert page.url.endswith("/artifacts/desk/tuned@1")
    page.locator("svg a[href*='desk/base@1']").first.click()
    assert page.url.endswith("/artifacts/desk/base@1")
    page.locator("svg a[href*='desk/data@1']").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/artifacts/desk/data@1")


def test_a_long_list_is_filtered_and_the_address_can_be_sent_on(tab: Open) -> None:
    page = (one := tab()).page
    one.go("/artifacts")
    page.get_by_label("Kind").select_option(value="dataset")
    page.locator("form.filters button").click()
    assert "kind=dataset" in page.url
    assert page.locator("main a[href$='/artifacts/desk/data@1']").count() >= 1
    assert page.locator("main a[href$='/artifacts/desk/tuned@1']").count() == 0


def test_a_curve_grows_while_the_step_runs(tab: Open, site: Site) -> None:
    page = (one := tab()).page
    one.go("/runs")
    page.get_by_role("link", name="desk/training").first.click()
    before = page.locator("#curves path.line").first.get_attribute("d")
    append(site.log, range(6, 30))
    page.wait_for_function(
        "before => document.querySelector('#curves path.line').getAttribute('d') !== before", arg=before
    )
    assert page.locator("#curves").inner_text().count(HOSTILE) >= 1  # a metric of that name, as text


def test_from_a_ladder_to_its_rung_and_to_a_streamed_answer(tab: Open) -> None:
    page = (one := tab()).page
    one.go("/ladders")
    page.locator(f"main a[href$='{LADDER}']").click()
    row = page.locator("tr", has=page.locator("a[href$='/artifacts/desk/echo@1']")).first
    row.get_by_role("link", name="try it").click()
    assert page.locator("#model").input_value().startswith("desk/echo")
    ask(page, "How long does a refund take?")
    assert "How long does a refund take?" in page.locator(".answer").first.inner_text()


def test_what_a_model_says_is_text_and_two_can_be_compared(tab: Open, locked: Site) -> None:
    page = signed_in(tab, locked, "Uma").page
    page.goto(locked.url + "/chat")
    page.locator("#beside").select_option("echo")
    hostile = f'{HOSTILE} <img src=x onerror="window.__hit=1"> {{{{ 7*7 }}}}\n```html\n{HOSTILE}\n```'
    ask(page, hostile)
    answers = page.locator(".answer")
    assert answers.count() == 2
    for number in range(2):
        said = answers.nth(number).inner_text()
        assert HOSTILE in said
        assert "{{ 7*7 }}" in said
        assert "kb/refunds.md" in answers.nth(number).locator(".quotes").inner_html()
    summary = answers.first.locator("details summary").first
    summary.click()
    assert "Refunds take a week." in answers.first.locator("blockquote").inner_text()
    assert page.locator("#turns script, #turns img").count() == 0
    assert "0.000013" in answers.first.inner_text()  # 7 tokens at 1 and 3 at 2 in a million


def test_who_has_no_key_signs_in_and_who_loses_it_is_out(tab: Open, locked: Site) -> None:
    one = signed_in(tab, locked, "Ada", is_admin=True)
    one.expected = ("403", "401", "404")
    page = one.page
    page.goto(locked.url + "/artifacts")
    assert page.locator("h1").inner_text() == "Artifacts"
    page.get_by_role("button", name="Sign out").click()
    assert "/sign-in" in page.url
    page.goto(locked.url + "/artifacts")
    assert "/sign-in" in page.url
    page.get_by_label("Your key").fill("nacre-nonsense")
    page.get_by_role("button", name="Sign in").click()
    assert page.get_by_role("alert").inner_text()
    again = signed_in(tab, locked, "Eve", is_admin=True).page
    again.goto(locked.url + "/artifacts")
    assert again.locator("h1").inner_text() == "Artifacts"
    assert locked.keys is not None
    locked.keys.revoke("Eve")
    again.goto(locked.url + "/artifacts")
    assert "/sign-in" in again.url


def test_a_key_that_is_no_administrator_s_sees_the_chat_and_its_own_usage_only(tab: Open, locked: Site) -> None:
    one = signed_in(tab, locked, "Una")
    one.expected = ("403",)
    page = one.page
    names = page.locator("nav").first.inner_text()
    assert "Chat" in names
    assert "Artifacts" not in names
    page.goto(locked.url + "/artifacts")
    assert "administrator" in page.locator("h1").inner_text()


def test_a_new_key_s_secret_is_shown_once(tab: Open, locked: Site) -> None:
    one = signed_in(tab, locked, "Olga", is_admin=True)
    one.expected = ("409",)  # a form that was sent before
    page = one.page
    page.goto(locked.url + "/keys/new")
    page.locator("#name").fill(f"bot {HOSTILE}")
    page.locator("main form button").click()
    secret = page.locator("code.secret").inner_text()
    assert secret.startswith("nacre-")
    page.reload()
    assert secret not in page.content()
    page.goto(locked.url + "/keys")
    assert secret not in page.content()
    assert f"bot {HOSTILE}" in page.locator("main").inner_text()


def test_language_and_theme_stay_as_chosen(tab: Open) -> None:
    page = (one := tab()).page
    one.go("/ladders")
    page.get_by_role("link", name="中文").click()
    assert page.locator("h1").inner_text() == "阶梯"
    page.locator(".menu summary").click()
    page.get_by_role("link", name="深色").click()
    one.go("/audits")
    assert page.locator("h1").inner_text() == "审计"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"


def test_the_keyboard_is_enough(tab: Open) -> None:
    page = (one := tab()).page
    one.go("/ladders")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.getElementById('content').contains(document.activeElement)")
    seen = []
    one.go("/ladders")
    for _ in range(14):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent.trim()"))
    places = [seen.index(name) for name in ("Overview", "Artifacts", "Ladders", "中文", "Theme")]
    assert places == sorted(places)
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_without_scripts_everything_but_the_chat_is_there(tab: Open) -> None:
    page = (one := tab(java_script_enabled=False)).page
    one.check = lambda: None  # type: ignore[method-assign]  # nothing can be asked of a page without scripts
    for path, needed in (
        ("/", "Overview"),
        ("/artifacts/desk/tuned@1", "desk/base@1"),
        ("/runs", "desk/training"),
        (LADDER, "retrieval"),
        ("/audits/audit/desk/tuned@1", "DERIVED"),
        ("/keys/new", "Name"),
    ):
        one.go(path)
        assert needed in page.locator("main").inner_text(), path
    one.go("/runs")
    page.get_by_role("link", name="desk/training").first.click()
    assert page.locator("#curves svg path.line").count() >= 1
    one.go("/chat")
    assert page.locator("noscript").count() == 1


def test_what_somebody_wrote_into_names_and_texts_is_text_everywhere(tab: Open) -> None:
    page = (one := tab()).page
    for path in ("/artifacts/desk/tuned@1", "/artifacts/desk/data@1", "/artifacts/desk/base@1"):
        one.go(path)
        assert HOSTILE in page.locator("main").inner_text().replace("\n", ""), path
    one.go("/artifacts/desk/tuned@1")
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert "{{ 7*7 }}" in page.locator("main").inner_text()
    one.go("/artifacts?q=" + "%3Cscript%3Ewindow.__hit%3D1%3C%2Fscript%3E%7B%7B7*7%7D%7D")
    assert "49" not in page.locator("main").inner_text()


def ask(page: Any, question: str) -> None:
    """Asks, and waits until every answer is whole."""
    page.locator("#question").fill(question)
    page.locator("#send").click()
    page.locator(".answer[aria-busy='false'] .account").last.wait_for()
    page.wait_for_function("!document.querySelector('.answer[aria-busy=true]')")
    page.wait_for_function("!document.getElementById('send').hidden")


def signed_in(tab: Open, locked: Site, name: str, **more: Any) -> Any:
    """A tab of a holder of a new key."""
    assert locked.keys is not None
    issued = locked.keys.create(name, **more)
    one = tab(locked)
    one.page.goto(locked.url + "/")
    one.page.get_by_label("Your key").fill(issued.secret)
    one.page.get_by_role("button", name="Sign in").click()
    assert re.search(r"/page/$", one.page.url)
    return one
