"""TLS: certificates that cannot be used are told at the start; those that can are spoken with."""

from __future__ import annotations

import logging
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from raw_upstream import answers
from served_process import refused, served, upstream_beside

from nacre.errors import ConfigError
from nacre.lifecycle.serve.config import parse
from nacre.lifecycle.serve.tls import TLSConfig, open_tls

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates with")


def made(folder: Path, name: str = "site", *, days: int = 90, bits: int = 2048) -> TLSConfig:
    """A certificate for localhost, which ends so many days from now."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", f"rsa:{bits}", "-nodes", "-keyout", key, "-out", certificate,
         "-days", str(days), "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    key.chmod(0o600)
    return TLSConfig(str(certificate), str(key))


def test_a_good_pair_is_opened_and_one_that_ends_soon_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert open_tls(made(tmp_path)).minimum_version >= ssl.TLSVersion.TLSv1_2
        assert not caplog.records
        open_tls(made(tmp_path, "soon", days=3))
    assert "ends in 3.0 days" in caplog.text


def over(folder: Path) -> TLSConfig:
    made(folder)
    ended = folder / "ended.pem"
    (folder / "index.txt").touch()
    (folder / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=x\n[x]\ndatabase={folder}/index.txt\nrand_serial=yes\ndefault_md=sha256\npolicy=p\n"
        f"new_certs_dir={folder}\n[p]\ncommonName=supplied\n"
    )
    asked = folder / "ask.csr"
    subprocess.run(["openssl", "req", "-new", "-key", folder / "site.key", "-subj", "/CN=localhost", "-out", asked],
                   check=True, capture_output=True)  # fmt: skip
    subprocess.run(
        ["openssl", "ca", "-batch", "-config", folder / "ca.cnf", "-selfsign", "-keyfile", folder / "site.key",
         "-in", asked, "-out", ended, "-startdate", "20200101000000Z", "-enddate", "20210101000000Z", "-notext"],
        check=True, capture_output=True,
    )  # fmt: skip
    return TLSConfig(str(ended), str(folder / "site.key"))


def readable(folder: Path) -> TLSConfig:
    pair = made(folder)
    Path(pair.key).chmod(0o644)
    return pair


def other_key(folder: Path) -> TLSConfig:
    return TLSConfig(made(folder).certificate, made(folder, "other").key)


def with_password(folder: Path) -> TLSConfig:
    pair = made(folder)
    locked = folder / "locked.key"
    subprocess.run(["openssl", "pkey", "-in", pair.key, "-aes256", "-passout", "pass:x", "-out", locked], check=True)
    locked.chmod(0o600)
    return TLSConfig(pair.certificate, str(locked))


def no_pem(folder: Path) -> TLSConfig:
    pair = made(folder)
    Path(pair.certificate).write_text("not a certificate")
    return pair


WRONG: list[tuple[Callable[[Path], TLSConfig], str]] = [
    (lambda folder: TLSConfig(str(folder / "none.pem"), str(folder / "none.key")), "cannot be read"),
    (lambda folder: TLSConfig(made(folder).certificate, str(folder / "none.key")), "none.key cannot be read"),
    (readable, "chmod o-rwx"),
    (other_key, "do not belong together"),
    (with_password, "has a password"),
    (no_pem, "no certificate"),
    (over, "expired"),
    (lambda folder: made(folder, bits=1024), "too small"),
]


@pytest.mark.parametrize(("make", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_cannot_be_used_is_said(make: Callable[[Path], TLSConfig], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        open_tls(make(tmp_path))
    assert said in str(error.value)


def test_the_section_is_strict() -> None:
    models = "models: {m: {upstream: {address: 'https://h.example/v1'}}}\n"
    with pytest.raises(ConfigError, match="did you mean 'certificate'"):
        parse("listen: {tls: {certficate: a.pem, key: a.key}}\n" + models, "g.yaml")
    with pytest.raises(ConfigError, match="required"):
        parse("listen: {tls: {certificate: a.pem}}\n" + models, "g.yaml")


def test_it_is_served_with_one_worker_and_with_two(tmp_path: Path) -> None:
    pair = made(tmp_path)
    trusting = ssl.create_default_context(cafile=pair.certificate)
    with upstream_beside(answers("hi")) as upstream:
        config = tmp_path / "g.yaml"
        for workers in (1, 2):
            config.write_text(
                f"listen: {{workers: {workers}, tls: {{certificate: {pair.certificate}, key: {pair.key}}}}}\n"
                f"models: {{m: {{upstream: {{address: '{upstream.url}'}}}}}}\nwatch: {{log: {{to: none}}}}\n"
            )
            with served(tmp_path, str(config)) as (_, url):
                assert url.startswith("https://127.0.0.1:")
                with urllib.request.urlopen(f"{url}/models", context=trusting, timeout=20) as answer:
                    assert b'"m"' in answer.read()
        Path(pair.key).chmod(0o644)
        assert "chmod" in refused(tmp_path, str(config), "--check")
