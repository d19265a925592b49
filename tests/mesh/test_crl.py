"""What a proxy makes of the CRL: the same Envoy, and the same field, under Istio and Envoy Gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from mesh.envoys import UPSTREAM, Envoy, Listening, cluster, server_tls
from mesh.istio import gateway
from mesh.pki import Authority

from authz.demo.ask import HANDSHAKE_FAILS, HANDSHAKE_HOLDS, Peer, client_tls, handshake


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.mark.parametrize("only_leaf", [True, False])  # istiod leaves it off; our ClientTrafficPolicy sets it
@pytest.mark.parametrize(
    ("ends", "good"), [(timedelta(days=7), HANDSHAKE_HOLDS), (timedelta(seconds=-1), HANDSHAKE_FAILS)]
)
def test_a_crl_refuses_the_revoked_and_once_it_has_ended_everybody(
    tmp_path: Path, stack: ExitStack, *, only_leaf: bool, ends: timedelta, good: str
) -> None:
    authority = Authority("partners", tmp_path)
    client, revoked = (authority.issue(name, x509.DNSName(name), common_name=name) for name in ("client", "revoked"))
    server = authority.issue("server", x509.DNSName("localhost"), common_name="api")
    crl = {"filename": str(authority.crl("partners", revoked, ends=ends))}
    tls = server_tls(server, authority.file, crl=crl, only_verify_leaf_cert_crl=only_leaf)
    listening = Listening(gateway(asks=False), tls)
    (port,) = stack.enter_context(Envoy(tmp_path, (listening,), [cluster(UPSTREAM, 9)])).ports
    told = [
        handshake(Peer(host="localhost", port=port, tls=client_tls(authority.file, who))) for who in (client, revoked)
    ]
    assert told == [good, HANDSHAKE_FAILS]
