"""A real Chromium, a store made for it, and the page as `nacre page` and `nacre serve` give it.

Every tab is watched: an error on the console, a refused resource, a dialog, a script that ran in a text of a user: each
fails the test in which it happened.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from page_kit import HOSTILE, put
from page_store import begin_run, ladder_result, put_audit, put_ladder, put_models, put_rungs
from scripted_upstream import Received, Sent, Upstream, echo, scripted

from nacre.ladder.result import LadderResult
from nacre.lifecycle.serve.state.keys import KeyStore
from nacre.lineage.store import Store
from nacre.lineage.workspace import lock

CHROMIUM = os.environ.get("NACRE_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


@dataclass(frozen=True)
class Site:
    """A running page: its address (`http://127.0.0.1:PORT/page`), its store, and the log of the run under way."""

    url: str
    store: Store
    log: Path
    keys: KeyStore | None = None


@dataclass
class Tab:
    """A tab of the browser, and what went wrong in it. `expected` are parts of messages that are part of the test."""

    page: Any
    site: Site
    problems: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()

    def go(self, path: str) -> Any:
        """Goes to a path of the page."""
        return self.page.goto(self.site.url + path)

    def check(self) -> None:
        """Nothing went wrong, and no text ran as a script, in any frame."""
        wrong = [one for one in self.problems if not any(part in one for part in self.expected)]
        assert wrong == []
        if not self.page.is_closed():
            assert self.page.evaluate("window.__hit") is None


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for the tests of a file. No longer: its event loop would be in the way of the files after it."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium here: install it, or name one in NACRE_CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture(scope="package")
def upstream() -> Iterator[Upstream]:
    """A model that says again what it was told, hostile texts included, and cites a passage."""
    with scripted(default=echo_with_citation) as running:
        yield running


def echo_with_citation(received: Received) -> Sent:
    """The last message again; in a stream with the passage that it rests on."""
    sent = echo(received)
    if received.body.get("stream"):
        cited = {"id": "x", "choices": [], "citations": [{"title": HOSTILE, "source": "kb/refunds.md", "page": 3,
                 "start": 10, "end": 40, "score": 0.75, "text": f"Refunds take a week. {HOSTILE}"}]}  # fmt: skip
        sent.body = sent.body.replace(b"data: [DONE]", f"data: {json.dumps(cited)}\n\ndata: [DONE]".encode())
    return sent


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Store:
    """Everything that the page shows, hostile names and texts among it."""
    folder = tmp_path_factory.mktemp("page")
    store = Store(folder / "home")
    put_models(store)
    put_rungs(store)
    put_ladder(store, with_a_rung_to_try(ladder_result()))
    put_ladder(store, ladder_result(created="2026-01-03T00:00:00+00:00", metric=HOSTILE))
    put_ladder(store, ladder_result("zh"), "ladder/客服/report")
    put_audit(store, "desk/tuned@1", "desk/base@1", f"/elsewhere/{HOSTILE}", text=f"depths {HOSTILE} {{{{ 7*7 }}}}")
    engine = upstream.folder(folder / "engine") / "engine.json"
    put(store, "desk/echo", {"engine.json": engine.read_text()}, kind="engine")
    return store


def with_a_rung_to_try(result: LadderResult) -> LadderResult:
    """The ladder with an engine that answers as its second tier."""
    rows = tuple(replace(row, lineage="desk/echo@1") if row.name == "relay" else row for row in result.rows)
    return replace(result, rows=rows)


@pytest.fixture(scope="package")
def log(store: Store) -> Iterator[Path]:
    """The log of a step under way: this process holds its lock, as whoever works at it does."""
    with lock(store, "desk/training", lambda holder: None):
        yield begin_run(store)


@pytest.fixture(scope="package")
def site(store: Store, log: Path) -> Iterator[Site]:
    """`nacre page`, as somebody starts it who has configured nothing."""
    with started(store, "page", "--no-browser", "--store", str(store.root)) as url:
        yield Site(url, store, log)


@pytest.fixture(scope="package")
def locked(store: Store, log: Path, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`nacre serve` with keys: the page of a gateway that others can reach."""
    folder = tmp_path_factory.mktemp("locked")
    config = folder / "gateway.yaml"
    config.write_text(
        f"models:\n  echo: {{upstream: {{address: {upstream.url}, abilities: [chat, stream]}}, "
        "price: {input_per_million: 1, output_per_million: 2}}\n"
        f"state: {{database: {folder / 'gateway.db'}}}\nkeys: {{required: true}}\n",
        encoding="utf-8",
    )
    keys = KeyStore(folder / "gateway.db")
    keys.create("first", is_admin=True)
    with started(store, "serve", str(config), "--store", str(store.root)) as url:
        yield Site(url, store, log, keys)
    keys.close()


@contextmanager
def started(store: Store, *words: str) -> Iterator[str]:
    """A command of nacre on a free port, until the block ends; gives the address of its page."""
    command = [sys.executable, "-m", "nacre.cli.main", *words, "--port", "0"]
    said = store.root / f"{words[0]}.log"
    with said.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, env=os.environ | {"NACRE_HOME": str(store.root)}, stderr=file, stdout=file)
    try:
        yield address_in(said, process) + "/page"
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()


def address_in(said: Path, process: subprocess.Popen[bytes]) -> str:
    """The address that a command says it is at, once it does."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r" at (http://[^/\s]+)", said.read_text(encoding="utf-8"))
        if found:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"it did not start: {said.read_text(encoding='utf-8')}")


Open = Callable[..., Tab]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = os.environ.get("NACRE_SCREENSHOTS")
    made = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    made.mkdir(parents=True, exist_ok=True)
    return made


@pytest.fixture
def tab(browser: Any, site: Site) -> Iterator[Open]:
    """Opens watched tabs: `tab()`, `tab(site=locked, locale="zh-CN", color_scheme="dark", viewport=...)`."""
    opened: list[tuple[Any, Tab]] = []

    def open_tab(at: Site = site, **options: Any) -> Tab:
        context = browser.new_context(**({"locale": "en-GB", "viewport": {"width": 1280, "height": 900}} | options))
        made = Tab(context.new_page(), at)
        context.set_default_timeout(30_000)
        watch(made)
        opened.append((context, made))
        return made

    yield open_tab
    try:
        for _, one in opened:
            one.check()
    finally:
        for context, _ in opened:
            context.close()


def watch(tab: Tab) -> None:
    """Writes down what goes wrong in a tab."""
    page, problems = tab.page, tab.problems
    page.on("console", lambda said: problems.append(f"{page.url}: {said.text}") if said.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(f"{page.url}: {error}"))

    def failed(request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # the tab went elsewhere before all of the page had come
            problems.append(f"{page.url}: {request.url} {request.failure}")

    def dismissed(dialog: Any) -> None:
        problems.append(f"{page.url}: a dialog: {dialog.message}")
        dialog.dismiss()

    page.on("requestfailed", failed)
    page.on("dialog", dismissed)
