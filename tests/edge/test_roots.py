"""CAs of issuers' servers, with a real HTTPS server: whom they trust, and that a rotation needs no restart."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from issuers import authority, certify, fetching, issuing, kids, running, server_tls, settings, until
from partner import certificate, jwk, jwks, rsa_key

from authz.edge import keys as edge_keys
from authz.edge import roots
from authz.edge.roots import Roots, trusting

OURS, OTHER = authority("our CA"), authority("another CA")
NOW = datetime.now(UTC)
BELOW = certificate(
    "intermediate CA", issuer=OURS, is_ca=True, start=NOW - timedelta(days=1), end=NOW + timedelta(days=1)
)
UNKNOWN = "self-signed certificate in certificate chain"  # the server sends its CA along


async def trouble(folder: Path, server: dict[str, Any], **more: Any) -> str:
    """Why keys could not be read from a server with a certificate of its own; "" if they were."""
    tls = server_tls(folder, **({"issuer": OURS} | server))
    async with issuing(tls) as issuer, fetching(settings(issuer, **more)) as ring:
        await ring.load_once()
        return ring.by_name["a"].trouble.removeprefix(f"{issuer.url}/jwks: ")


def pem(folder: Path, content: str, name: str = "ca.pem") -> str:
    (folder / name).write_text(content)
    return str(folder / name)


TRUSTED: dict[str, tuple[str, dict[str, Any]]] = {
    "its CA": (OURS.pem, {}),
    "among others": (OTHER.pem + OURS.pem, {}),
    "with comments": (f"# Zertifizierungsstelle Zürich\n{OURS.pem}\n# Ende\n", {}),
    "an intermediate CA's root": (OURS.pem, {"issuer": BELOW}),
    "an intermediate CA alone": (BELOW.pem, {"issuer": BELOW}),
}


@pytest.mark.parametrize(("content", "server"), TRUSTED.values(), ids=TRUSTED.keys())
async def test_issuer_of_a_private_ca_is_trusted_by_its_own_file_or_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, server: dict[str, Any]
) -> None:
    file = pem(tmp_path, content)
    assert await trouble(tmp_path, server, ca=file) == ""
    if content != BELOW.pem:  # OpenSSL's own trust ends at a root
        monkeypatch.setenv("SSL_CERT_FILE", file)
        assert await trouble(tmp_path, server) == ""


async def test_server_that_no_trusted_ca_vouches_for_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert await trouble(tmp_path, {}) == f"TLS verification failed: {UNKNOWN} (trusted are the system's CAs)"
    other, ours = pem(tmp_path, OTHER.pem, "other.pem"), pem(tmp_path, OURS.pem)
    told = f"TLS verification failed: {UNKNOWN} (trusted are the CAs in"
    monkeypatch.setenv("SSL_CERT_FILE", other)
    assert await trouble(tmp_path, {}) == f"{told} SSL_CERT_FILE {other})"
    monkeypatch.setenv("SSL_CERT_FILE", ours)
    assert await trouble(tmp_path, {}, ca=other) == f"{told} {other})"  # an issuer's own file replaces the system's
    expired = {"start": NOW - timedelta(days=2), "end": NOW - timedelta(days=1)}
    assert await trouble(tmp_path, expired, ca=ours) == f"TLS verification failed: certificate has expired (trusted are the CAs in {ours})"  # fmt: skip
    found = await trouble(tmp_path, {"dns": "other.example.org"}, ca=ours)
    assert found.startswith("TLS verification failed: Hostname mismatch, certificate is not valid for 'localhost'.")


@pytest.mark.parametrize("named_by", ["ca", "SSL_CERT_FILE"])
async def test_rotated_ca_is_read_by_the_running_refresher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named_by: str
) -> None:
    for name in ("REFRESH_S", "COOLDOWN_S"):
        monkeypatch.setattr(edge_keys, name, 0.05)
    monkeypatch.setattr(edge_keys, "RETRY_S", (0.05,))
    file = pem(tmp_path, OURS.pem)
    more = {"ca": file} if named_by == "ca" else {}
    if not more:
        monkeypatch.setenv(named_by, file)
    tls = server_tls(tmp_path, OURS)
    async with issuing(tls) as issuer, fetching(settings(issuer, **more)) as ring, running(ring):
        keys = ring.by_name["a"]
        await until(lambda: kids(keys) == ["k1"])
        certify(tls, tmp_path, OTHER)  # the server is first
        issuer.documents["/jwks"] = jwks(jwk(rsa_key("next"), "k2"))
        await until(lambda: "TLS verification failed" in keys.trouble)
        assert kids(keys) == ["k1"]
        pem(tmp_path, OTHER.pem)
        await until(lambda: kids(keys) == ["k2"])
        pem(tmp_path, OURS.pem)  # the CAs are first: the old one is trusted no more
        await until(lambda: "TLS verification failed" in keys.trouble)
        certify(tls, tmp_path, OURS)
        await until(lambda: not keys.trouble)


UNUSABLE = {
    "missing": (None, "No such file or directory"),
    "empty": ("", "expected PEM certificates"),
    "not ASCII": ("ü", "expected PEM certificates"),
    "blank": ("\n", "expected PEM certificates"),
    "no PEM": ("not PEM", "expected PEM certificates"),
    "broken": (OURS.pem.replace("\n", "\n!", 5), "expected PEM certificates"),
    "cut": (OURS.pem[:-60], "expected PEM certificates"),
    "too long": ("#" * (roots.FILE_MAX_BYTES + 1), f"more than {roots.FILE_MAX_BYTES} bytes"),
}


@pytest.mark.parametrize("named_by", ["ca", "SSL_CERT_FILE"])
@pytest.mark.parametrize("unusable", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_file_that_cannot_be_used_changes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    unusable: tuple[str | None, str],
    named_by: str,
) -> None:
    content, reason = unusable
    file = tmp_path / "ca.pem"
    if named_by != "ca":
        monkeypatch.setenv(named_by, str(file))
    if content is not None:
        file.write_text(content)
    looked = Roots(file if named_by == "ca" else None)
    told = f"the CAs in {'' if named_by == 'ca' else 'SSL_CERT_FILE '}{file}: {reason}"
    with pytest.raises(ValueError, match=r"^the CAs in ") as wrong:  # never one that trusts the system's instead
        looked.context()
    assert str(wrong.value) == told
    file.write_text(OURS.pem)
    good = looked.context()
    assert looked.context() is good
    file.unlink()
    if content is not None:
        file.write_text(content)
    assert looked.context() is looked.context() is good
    warned = [(record.getMessage(), vars(record)["error"]) for record in caplog.records]
    assert warned == [("CAs of issuers' servers not read; the last good ones hold", told)]
    file.write_text(OTHER.pem)
    assert looked.context() is not good


def test_folder_of_the_system_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    looked = Roots(None)
    before = looked.context()
    assert looked.context() is before
    pem(tmp_path, OURS.pem, "12345678.0")
    assert looked.context() is not before


def test_own_file_alone_is_trusted() -> None:
    context = trusting(OURS.pem.encode())
    assert context.cert_store_stats()["x509"] == 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
