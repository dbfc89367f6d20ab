"""Downloads of single files from public GitHub repositories, verified before they get their name."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from nacre.errors import DataError, IntegrityError
from nacre.lineage.durable import write_atomic

# Where raw files are served; a mirror can stand in for it.
RAW_VARIABLE, RAW = "NACRE_GITHUB_RAW", "https://raw.githubusercontent.com"
TIMEOUT_S = 60
_ADDRESS = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<path>[^@]+?) ?@(?P<commit>[0-9a-f]{7,40})")


@dataclass(frozen=True)
class Upstream:
    """A file of a public repository at a commit; with `first_byte` only the part from there on counts."""

    repo: str
    commit: str
    path: str
    first_byte: int | None = None

    @classmethod
    def parse(cls, address: str, first_byte: int | None = None) -> Upstream:
        """Reads `owner/repo:path @commit`. Raises DataError."""
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise DataError(f"{address!r} is no source address", remedy="write owner/repo:path @commit")
        return cls(match["repo"], match["commit"], match["path"], first_byte)

    @property
    def url(self) -> str:
        base = os.environ.get(RAW_VARIABLE, RAW).rstrip("/")
        return f"{base}/{self.repo}/{self.commit}/{urllib.parse.quote(self.path)}"


def download(source: Upstream, target: Path, n_bytes: int, sha256: str) -> None:
    """Writes the source's bytes to `target`, all or nothing. Raises DataError offline, IntegrityError otherwise."""
    try:
        with urllib.request.urlopen(source.url, timeout=TIMEOUT_S) as answer:
            data = answer.read()
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise DataError(
            f"{source.url} cannot be downloaded: {error}",
            remedy=f"go online, set {RAW_VARIABLE} to a mirror, or set NACRE_DATA to a folder that has the set",
        ) from error
    first = source.first_byte or 0
    data = data[first : first + n_bytes] if source.first_byte is not None else data
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise IntegrityError(
            f"{source.url} gave {len(data):,} bytes with SHA-256 {digest[:16]}..., stated is {sha256[:16]}...",
            remedy="the source changed: nothing was stored; set NACRE_DATA to a folder that has the set",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, data)
