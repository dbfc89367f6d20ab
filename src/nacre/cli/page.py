"""`nacre page`: look at what is in the store, and try its models, in a browser."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from nacre.cli.parser import add_store_option

HELP = """
Opens a page on this machine (127.0.0.1): artifacts and where they come from, runs as they go, ladder and audit reports,
a chat that switches models and rungs, usage and keys. In English and Chinese, until Ctrl-C. `nacre serve` has the same
page under /page.

examples:
  nacre page
  nacre page --port 8500 --no-browser
  nacre page --store /srv/nacre
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--host", help="where to listen (default: 127.0.0.1); elsewhere keys are needed")
    parser.add_argument("--port", type=int, help="0 takes a free one (default: 8400)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    add_store_option(parser)


def run(args: Namespace) -> int:
    import sys
    import webbrowser
    from functools import partial

    from nacre.cli.serve import mount_page
    from nacre.lazy import require
    from nacre.lifecycle.serve.assemble import assemble, listening
    from nacre.lifecycle.serve.config import ServeConfig
    from nacre.lifecycle.serve.server import serve

    require("starlette")

    def started(url: str) -> None:
        print(f"the page is at {url}/page (Ctrl-C stops)", file=sys.stderr, flush=True)
        if not args.no_browser:
            webbrowser.open(f"{url}/page/")

    config = listening(ServeConfig({}), args.host, args.port)
    serve(
        config, partial(assemble, config, store=args.store), mount=partial(mount_page, store=args.store),
        started=started,
    )  # fmt: skip
    return 0
