"""`python toy_program.py ARGUMENT...` is `nacre ARGUMENT...` with the toy stages in the catalogue."""

from __future__ import annotations

import sys

import toy_stages

from nacre.cli.main import main

if __name__ == "__main__":
    toy_stages.register()
    sys.exit(main())
