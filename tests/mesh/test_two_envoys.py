"""Two plain Envoys, edge and inner, where the inner one asks: docs/envoy.md, "Behind another proxy".

The inner listener accepts unverified certificates here, so that nobody but authz stands between a stranger and a record.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from mesh import istio
from mesh.envoys import UPSTREAM, Config, Listening, client_tls, cluster, server_tls
from mesh.pki import PEM, Authority
from mesh.world import Seen, World, forged, world
from partner import Certificate, certificate

from authz.demo.ask import Peer
from authz.demo.ca import Credential

EDGE, INNER = "spiffe://healthtech.dev/edge", "spiffe://healthtech.dev/inner"
LIE = "x-forwarded-client-cert"
WHOLE = {"cert": True, "subject": True, "uri": True, "dns": True}
NAMES = {"uri": True}  # proven by the Hash alone
UNTRUSTED = (403, "proxy_untrusted")
NOW = datetime.now(UTC)


def inner(details: dict[str, bool]) -> Config:
    return istio.sidecar() | {"set_current_client_cert_details": details}


@dataclass
class Site:
    world: World
    proxies: Authority
    edge: Credential
    own: Credential

    def port(self, details: dict[str, bool]) -> int:
        """Return that of an inner Envoy which writes these details of whoever calls, verified or not."""
        tls = server_tls(self.own, self.proxies.file, trust_chain_verification="ACCEPT_UNTRUSTED")
        (port,) = self.world.front(Listening(inner(details), tls))
        return port

    def through_edge(self, details: dict[str, bool]) -> Seen:
        behind = [cluster(UPSTREAM, self.port(details), client_tls(self.edge, self.proxies.file, INNER))]
        at_edge = Listening(istio.gateway(asks=False), server_tls(self.world.server, self.world.partners.file))
        (port,) = self.world.front(at_edge, clusters=behind)
        return self.world.ask(port, self.world.client)

    def past_edge(self, who: Credential, details: dict[str, bool], lie: str) -> Seen:
        tls = ssl.create_default_context(cafile=str(self.proxies.file))
        tls.check_hostname = False
        tls.load_cert_chain(who.certificate_file, who.key_file)
        to = self.port(details)
        return self.world.ask(to, None, (LIE, lie), peer=lambda port: Peer(host="127.0.0.1", port=port, tls=tls))

    def credential(self, made: Certificate) -> Credential:
        found = Credential(
            certificate=made.parsed,
            certificate_file=self.world.folder / f"{made.fingerprint}.crt",
            key_file=self.world.folder / f"{made.fingerprint}.key",
        )
        found.certificate_file.write_text(made.pem)
        private = made.key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        found.key_file.write_bytes(private)
        return found


def started(folder: Path, hops: int) -> Iterator[Site]:
    proxies = Authority("proxies", folder)
    uri = x509.UniformResourceIdentifier
    edge = proxies.issue("edge", uri(EDGE), x509.DNSName("edge.healthtech.dev"), common_name="edge")
    own = proxies.issue("inner", uri(INNER), common_name="inner")
    identity = {
        "trustedHops": hops,
        "trustedProxies": [EDGE],
        "proxyCa": str(proxies.file),
        "proxyFingerprints": [edge.fingerprint],
    }
    with world(folder, identity) as made:
        yield Site(made, proxies, edge, own)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from started(tmp_path_factory.mktemp("two"), 2)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from started(tmp_path_factory.mktemp("three"), 3)


def test_edge_is_proven_by_its_ca_also_with_dns_names_after_its_uri(site: Site) -> None:
    seen = site.through_edge(WHOLE)
    assert seen.verdict == (200, None)
    _, edge = seen.elements
    assert list(edge) == ["By", "Hash", "Cert", "Subject", "URI", "DNS"]  # in Envoy's order
    assert (edge["URI"], edge["DNS"]) == ([EDGE], ["edge.healthtech.dev"])


def test_edge_is_proven_by_its_hash_where_nothing_else_is_told(site: Site) -> None:
    seen = site.through_edge(NAMES)
    assert seen.verdict == (200, None)
    assert list(seen.elements[1]) == ["By", "Hash", "URI"]


FORGED = {
    "the edge's URI": EDGE,
    "and a DNS name in one": f"{EDGE};DNS=x",
    "and a By in one": f"{EDGE};By={INNER}",
    "after another URI": f"spiffe://evil/x;URI={EDGE}",
}


@pytest.mark.parametrize("details", [NAMES, WHOLE], ids=["names", "whole"])
@pytest.mark.parametrize("uri", FORGED.values(), ids=FORGED.keys())
def test_self_signed_certificate_is_no_proxy_whatever_its_uri(site: Site, uri: str, details: dict[str, bool]) -> None:
    stranger = site.credential(certificate("stranger", uris=(uri,)))
    seen = site.past_edge(stranger, details, forged(site.world.client))
    assert (seen.verdict, len(seen.elements), seen.upstream) == (UNTRUSTED, 2, [])
    assert seen.elements[1]["URI"][-1] == uri.rpartition("URI=")[2].partition(";")[0]


def test_proxys_certificate_that_has_expired_proves_nothing(site: Site) -> None:
    issuer = Certificate("", "", site.proxies.key, x509.load_pem_x509_certificate(site.proxies.file.read_bytes()))
    begin, end = NOW - timedelta(days=9), NOW - timedelta(days=1)
    expired = site.credential(certificate("edge", uris=(EDGE,), issuer=issuer, start=begin, end=end))
    assert site.past_edge(expired, WHOLE, forged(site.world.client)).verdict == UNTRUSTED
    good = site.credential(certificate("edge", uris=(EDGE,), issuer=issuer, start=begin))
    assert site.past_edge(good, WHOLE, forged(site.world.client)).verdict == (200, None)


@pytest.mark.parametrize("details", [NAMES, WHOLE], ids=["names", "whole"])
def test_open_quote_swallows_no_element(site: Site, details: dict[str, bool]) -> None:
    """The caller leaves a quote open, and its own certificate closes it: what Envoy wrote of it would be a subject."""
    stranger = site.credential(certificate("stranger", uris=(f'x";URI={EDGE}',)))
    lie = f'{forged(site.world.client)},Hash={site.edge.fingerprint};Subject="'
    seen = site.past_edge(stranger, details, lie)
    assert (seen.verdict, seen.upstream) == ((400, "request_malformed"), [])
    written = seen.checks[0].attributes.request.http.headers[LIE]
    assert written.endswith(f';URI=x";URI={EDGE}')  # Envoy escapes nothing
    assert stranger.fingerprint in written


@pytest.mark.parametrize("details", [NAMES, WHOLE], ids=["names", "whole"])
def test_one_certificate_makes_no_two_proxies(three: Site, details: dict[str, bool]) -> None:
    uri = f"{EDGE},Hash={three.edge.fingerprint};URI={EDGE}"
    stranger = three.credential(certificate("stranger", uris=(uri,)))
    seen = three.past_edge(stranger, details, forged(three.world.client))
    assert (seen.verdict, len(seen.elements), seen.upstream) == (UNTRUSTED, 3, [])
