"""`nacre serve WHAT...`: put models behind one OpenAI-compatible address."""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nacre.cli.parser import add_store_option
from nacre.errors import UsageError, closest

if TYPE_CHECKING:
    from nacre.lifecycle.serve.config import ServeConfig
    from nacre.lifecycle.serve.contract import ASGI
    from nacre.lifecycle.serve.pipeline import Gateway

HELP = """
Serves models under OpenAI's API: /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/classify, /v1/search and
/v1/models, until Ctrl-C or SIGTERM. WHAT is a model or an index (name, name@version, folder), an address of somebody
else's model (http://HOST/v1#MODEL), several of them, or one YAML file that names models, routes and prices. On this
machine alone (127.0.0.1) no key is asked for until one is made; elsewhere keys are needed.

examples:
  nacre serve intents/tune
  nacre serve intents/tune desk/index "https://api.example.com/v1?key_variable=API_KEY#mini"
  nacre serve gateway.yaml --host 0.0.0.0 --port 8400
  nacre serve gateway.yaml --workers 4
  nacre serve keys create alice --money 20 --per month
  nacre serve usage --by key,model
  nacre serve deploy gateway.yaml --to deploy
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", nargs="+", metavar="WHAT", help="models, indexes, addresses, or one YAML file")
    parser.add_argument("--host", help="where to listen (default: 127.0.0.1, or what the file says)")
    parser.add_argument("--port", type=int, help="0 takes a free one (default: 8400, or what the file says)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes behind the address (default: 1)")
    parser.add_argument("--check", action="store_true", help="read the config and open every model, then stop")
    add_store_option(parser)


def run(args: Namespace) -> int:
    from nacre.lifecycle.serve.assemble import assemble, listening
    from nacre.lifecycle.serve.server import check, serve

    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    config = listening(config_for(args.what), args.host, args.port, args.workers)
    make = partial(assemble, config, store=args.store)
    if args.check:
        check(config, make)
        print(f"good: {', '.join(config.names)}")
        return 0
    serve(config, make, mount=partial(mount_page, store=args.store), started=partial(_say, config))
    return 0


def config_for(what: list[str]) -> ServeConfig:
    """The config of a file, or one made of references."""
    from nacre.lifecycle.serve.config import load
    from nacre.lifecycle.serve.references import config_of

    files = [one for one in what if one.endswith((".yaml", ".yml"))]
    if not files:
        return config_of(what)
    if len(what) > 1:
        meant = closest(what[0], ("deploy", "keys", "usage"))  # a misspelt object, or something to serve
        remedy = meant if meant.startswith("did you mean") else "name everything in one file"
        raise UsageError("a config file stands beside something else", remedy=remedy)
    return load(Path(files[0]))


def mount_page(gateway: Gateway, inner: ASGI, store: str | None, *, ahead: bool = False) -> dict[str, ASGI]:
    """The page under its prefix, where its extra is installed; `ahead` of the first request, or with it."""
    if find_spec("starlette") is None or find_spec("jinja2") is None:
        return {}
    from nacre.web.opening import open_page

    return open_page(gateway, inner, store, ahead=ahead)


def _say(config: ServeConfig, url: str) -> None:
    several = f", {config.listen.workers} workers" if config.listen.workers > 1 else ""
    print(f"serving {', '.join(config.names)} at {url}/v1 (Ctrl-C stops{several})", file=sys.stderr, flush=True)
