"""Which bytes were audited: what a report cites of each side."""

from __future__ import annotations

import os
from pathlib import Path

from nacre.errors import NacreError
from nacre.lifecycle.audit.subject import Subject
from nacre.lineage.digest import digest_json, digest_path
from nacre.lineage.store import Store

MOST_BYTES = 4 << 30  # beyond, the digest of every byte would take longer than the audit
HEADERS = "headers:"


def identity(subject: Subject, store: Store | None = None) -> str | None:
    """`sha256:...` of all content as lineage records it; of large subjects `headers:sha256:...`, over names, dtypes,
    shapes and sizes of the tensors and the config; None where bytes cannot be read."""
    try:
        if _size(subject.path) <= MOST_BYTES:
            return digest_path(subject.path, store.hashes.hash_file) if store else digest_path(subject.path)
    except (NacreError, OSError):
        return None
    tensors = [[one.name, one.dtype, list(one.shape), one.n_bytes] for one in subject.infos.values()]
    return HEADERS + digest_json({"config": dict(subject.config or {}), "tensors": sorted(tensors)})


def is_whole(digest: str | None) -> bool:
    """Whether a digest is one of all content."""
    return digest is not None and not digest.startswith(HEADERS)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(os.stat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)
