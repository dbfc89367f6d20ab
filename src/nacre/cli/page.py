"""`nacre page [WHAT...]`: look at what is in the store, and try its models, in a browser."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from argparse import ArgumentParser, Namespace
from functools import partial
from typing import TYPE_CHECKING

from nacre.cli.parser import add_store_option

if TYPE_CHECKING:
    from nacre.lifecycle.serve.config import ServeConfig

HELP = """
Opens a page on this machine (127.0.0.1): artifacts and where they come from, runs as they go, ladder and audit reports,
a chat that switches models and rungs, usage and keys. In English and Chinese, until Ctrl-C. `nacre serve` has the same
page under /page. WHAT is what `nacre serve` takes; without it the chat has the newest version of every model, rung and
index of the store, each opened when it is first asked and two at a time.

examples:
  nacre page
  nacre page --port 8500 --no-browser
  nacre page --store /srv/nacre
  nacre page intents/tune "https://api.example.com/v1?key_variable=API_KEY#mini"
"""
_OPEN_AT_ONCE = 2


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", nargs="*", metavar="WHAT", help="models, indexes, addresses, or one YAML file")
    parser.add_argument("--host", help="where to listen (default: 127.0.0.1); elsewhere keys are needed")
    parser.add_argument("--port", type=int, help="0 takes a free one (default: 8400)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    add_store_option(parser)


def run(args: Namespace) -> int:
    import logging

    from nacre.cli.serve import config_for, mount_page
    from nacre.lazy import require
    from nacre.lifecycle.serve.assemble import assemble, listening
    from nacre.lifecycle.serve.server import serve

    require("starlette")
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    config = config_for(args.what) if args.what else _of_store(args.store)
    config = listening(config, args.host, args.port)
    make = partial(assemble, config, store=args.store, open_at_once=None if args.what else _OPEN_AT_ONCE)
    started = partial(_started, opens=not args.no_browser and _has_display())
    serve(config, make, mount=partial(mount_page, store=args.store, ahead=True), started=started)
    return 0


def _of_store(store: str | None) -> ServeConfig:
    """Everything of the store that can answer; what cannot be offered is told."""
    from nacre.lifecycle.serve.local.offers import offers
    from nacre.recipe.references import open_store

    found = offers(open_store(store))
    for ref, why in found.left_out.items():
        print(f"not in the chat: {ref}: {why}", file=sys.stderr)
    return found.config


def _started(url: str, *, opens: bool) -> None:
    print(f"the page is at {url}/page/ (Ctrl-C stops)", file=sys.stderr, flush=True)
    if opens:  # some browsers stay in the foreground until they are closed
        threading.Thread(target=webbrowser.open, args=(f"{url}/page/",), daemon=True).start()


def _has_display() -> bool:
    """Whether a browser could be seen: without one, `webbrowser` would start one in the terminal."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
