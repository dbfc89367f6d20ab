"""TLS without a proxy: the certificate and the key are tried at the start, not by the first client."""

from __future__ import annotations

import logging
import ssl
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from nacre.errors import ConfigError

_log = logging.getLogger(__name__)
_SOON_DAYS = 14
_WRONG = {"KEY_VALUES_MISMATCH": "do not belong together", "EE_KEY_TOO_SMALL": "have a key that is too small"}
_OTHERS = stat.S_IROTH | stat.S_IWOTH


@dataclass(frozen=True)
class TLSConfig:
    """PEM files: the certificate with its chain, and its key without a password, which others may not read."""

    certificate: str
    key: str


def open_tls(config: TLSConfig) -> ssl.SSLContext:
    """What the server speaks TLS with (1.2 and up). Raises ConfigError for files that cannot be used or are not valid
    now; a certificate that ends within two weeks is warned of."""
    certificate, key = Path(config.certificate).expanduser(), Path(config.key).expanduser()
    for field, path in (("certificate", certificate), ("key", key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"listen.tls.{field}: {path} cannot be read: {error.strerror}",
                remedy="name a PEM file that you may read",
            ) from None
    if key.stat().st_mode & _OTHERS:
        raise ConfigError(f"listen.tls.key: everybody may read {key}", remedy=f"chmod o-rwx {key}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=lambda: _refuse_password(key))
    except ssl.SSLError as error:
        what = _WRONG.get(error.reason or "", "are no certificate and its key in PEM")
        raise ConfigError(
            f"listen.tls: {certificate} and {key} {what}: {error.reason or error}",
            remedy="give the certificate (its chain below it) and the key that it was made for",
        ) from None
    ends = _try(context, certificate)
    days = (ends - time.time()) / 86_400
    if days < _SOON_DAYS:
        _log.warning("the certificate %s ends in %.1f days: renew it, and start again", certificate, days)
    return context


def _refuse_password(key: Path) -> NoReturn:
    raise ConfigError(
        f"listen.tls.key: {key} has a password",
        remedy=f"openssl pkey -in {key} -out plain.key, and chmod 600 plain.key",
    )


def _try(context: ssl.SSLContext, certificate: Path) -> float:
    """Speaks TLS with itself, in memory, trusting the certificate; gives the Unix time of its end."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is enough
    trusting.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    while waiting:
        for end in tuple(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                raise ConfigError(
                    f"listen.tls.certificate: {certificate}: {error.verify_message}",
                    remedy="give one that is valid now; see: openssl x509 -noout -dates -in FILE",
                ) from None
            except ssl.SSLError as error:
                raise ConfigError(
                    f"listen.tls.certificate: {certificate} cannot be spoken with: {error.reason or error}",
                    remedy="give one for a server, with a key of 2,048 bits (RSA) or 256 (EC) at least",
                ) from None
            waiting.remove(end)
    found = client.getpeercert()
    assert found is not None  # it was verified
    return float(ssl.cert_time_to_seconds(str(found["notAfter"])))
