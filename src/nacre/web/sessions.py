"""Who is signed in: a cookie that names a key and is signed, so that every worker and every replica can check it.

The cookie holds the key's public id, a mark of its secret (a rotated key's sessions end), the moment it ends, and an
HMAC-SHA256 over the three. The signing secret is `$NACRE_PAGE_SECRET`, else a file beside the gateway's state, readable
by its owner only: a stolen copy of the database signs nobody in.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from nacre.errors import ConfigError, ResourceError
from nacre.lifecycle.serve.contract import Caller, Keys

COOKIE = "nacre_session"
LASTS_S = 12 * 3600.0
VARIABLE = "NACRE_PAGE_SECRET"
_LEAST_BYTES = 32


class Sessions:
    """Signs callers in by their key, and says whose a cookie is."""

    def __init__(self, keys: Keys, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self._keys, self._secret, self._clock = keys, secret, clock

    def begin(self, key: str) -> str | None:
        """A cookie for the holder of a key; None where it is no key. Refusal (401) where it is expired or revoked."""
        caller = self._keys.find(key.strip())
        held = self._keys.holder(caller.id) if caller is not None else None
        if held is None:
            return None
        told = f"{held[0].id}.{held[1]}.{int(self._clock() + LASTS_S)}"
        return f"{told}.{self._sign(told)}"

    def find(self, cookie: str) -> Caller | None:
        """Whose a cookie is; None where it is forged, over, or of a key whose secret was changed.

        Refusal (401) where the key is expired or revoked.
        """
        told, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(told).encode()):
            return None
        caller_id, mark, ends = told.split(".")
        if int(ends) <= self._clock():
            return None
        held = self._keys.holder(caller_id)
        return held[0] if held is not None and hmac.compare_digest(held[1], mark) else None

    def _sign(self, told: str) -> str:
        return hmac.new(self._secret, told.encode(), hashlib.sha256).hexdigest()


def signing_secret(folder: Path) -> bytes:
    """The secret of the environment, else that of `page.secret` in `folder`, made where there is none.

    Raises ConfigError for one that is too short, ResourceError where the file cannot be read or written.
    """
    given = os.environ.get(VARIABLE)
    if given is not None:
        if len(given.encode()) < _LEAST_BYTES:
            raise ConfigError(
                f"{VARIABLE} has fewer than {_LEAST_BYTES} bytes", remedy="give a random one: openssl rand -hex 32"
            )
        return given.encode()
    path = folder / "page.secret"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _make(path)
        kept = path.read_bytes()
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be kept: {error.strerror or error}", remedy=f"make {folder} writable, or set {VARIABLE}"
        ) from None
    if len(kept) < _LEAST_BYTES:
        raise ConfigError(f"{path} is damaged", remedy="delete it: everybody signs in once more")
    return kept


def _make(path: Path) -> None:
    """The file, whole from the first moment; where another process was faster, its file stays."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(secrets.token_hex(_LEAST_BYTES).encode())
    try:
        os.link(part, path)
    except FileExistsError:
        pass
    finally:
        part.unlink()
