"""The FHIR server's sidecar asks ClientPolicy, behind Istio's gateway: docs/istio.md, "At the sidecar"."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import partner
import pytest
from cryptography import x509
from mesh import examples, istio
from mesh.envoys import UPSTREAM, Config, Listening, client_tls, cluster, server_tls
from mesh.pki import Authority
from mesh.world import Seen, World, forged, world

from authz.demo.ask import Peer
from authz.demo.ca import Credential

STRANGER = "spiffe://cluster.local/ns/elsewhere/sa/default"
LIE = "x-forwarded-client-cert"


@dataclass
class Mesh:
    """A world with workloads: the gateway, the FHIR server, and one that may speak to nobody."""

    world: World
    root: Authority
    gateway: Credential
    fhir: Credential
    stranger: Credential

    def sidecar(self, http: Config | None = None) -> tuple[int, int]:
        """Return its port for the mesh, and the one for clear text (PERMISSIVE)."""
        http = http or istio.sidecar()
        secure, clear = self.world.front(Listening(http, server_tls(self.fhir, self.root.file)), Listening(http))
        return secure, clear

    def through_gateway(self, who: Credential, *headers: tuple[str, str], http: Config | None = None) -> Seen:
        tls = client_tls(self.gateway, self.root.file, istio.FHIR)
        behind = [cluster(UPSTREAM, self.sidecar(http)[0], tls)]
        edge = Listening(istio.gateway(asks=False), server_tls(self.world.server, self.world.partners.file))
        (port,) = self.world.front(edge, clusters=behind)
        return self.world.ask(port, who, *headers)

    def past_gateway(self, workload: Credential, *headers: tuple[str, str]) -> Seen:
        """Ask the sidecar as a workload of the mesh."""
        tls = ssl.create_default_context(cafile=str(self.root.file))
        tls.check_hostname = False  # a workload's certificate names no host
        tls.load_cert_chain(workload.certificate_file, workload.key_file)
        secure, _ = self.sidecar()
        return self.world.ask(secure, None, *headers, peer=lambda port: Peer(host="127.0.0.1", port=port, tls=tls))


def started(folder_of: pytest.TempPathFactory, values: str) -> Iterator[Mesh]:
    folder = folder_of.mktemp("sidecar")
    with world(folder, examples.identity("istio", values)) as made:
        root = Authority("cluster.local", folder)
        workloads = [
            root.issue(f"workload-{number}", x509.UniformResourceIdentifier(uri))
            for number, uri in enumerate((istio.GATEWAY, istio.FHIR, STRANGER))
        ]
        yield Mesh(made, root, *workloads)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    yield from started(tmp_path_factory, "values-sidecar.yaml")


@pytest.fixture(scope="module")
def one_hop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """An authz that was told of the gateway alone, asked by a sidecar."""
    yield from started(tmp_path_factory, "values.yaml")


def test_authz_gets_the_gateways_element_and_then_the_sidecars(mesh: Mesh) -> None:
    seen = mesh.through_gateway(mesh.world.client)
    assert seen.verdict == (200, None)
    client, gateway = seen.elements
    assert set(client) == {"Hash", "Cert", "Subject", "URI", "DNS"}
    assert client["Hash"] == [mesh.world.client.fingerprint]
    assert set(gateway) == {"By", "Hash", "Subject", "URI"}  # no Cert, unless proxyHeaders asks for it
    assert (gateway["By"], gateway["URI"], gateway["Subject"]) == ([istio.FHIR], [istio.GATEWAY], [""])
    (check,) = seen.checks
    assert check.attributes.source.certificate == ""
    assert seen.sent_up("x-client-id") == [partner.CLIENT_ID]


def test_the_callers_address_is_the_last_of_x_forwarded_for(mesh: Mesh) -> None:
    """So `clientAddress` in values-sidecar.yaml: to the sidecar's filter the peer is the gateway."""
    seen = mesh.through_gateway(mesh.world.client, ("x-forwarded-for", "203.0.113.7"))
    (check,) = seen.checks
    said, added = check.attributes.request.http.headers["x-forwarded-for"].split(",")
    assert said == "203.0.113.7"  # whatever the caller likes
    assert added  # by the gateway; the sidecar adds none: of a loopback caller, this machine's own address


def test_what_the_caller_says_of_itself_is_gone(mesh: Mesh) -> None:
    lies = ((LIE, forged(mesh.world.client)), ("x-client-id", "root"), ("x_client_id", "root"))
    seen = mesh.through_gateway(mesh.world.client, *lies)
    assert (seen.verdict, len(seen.elements)) == ((200, None), 2)
    assert seen.sent_up("x-client-id") == [partner.CLIENT_ID]
    stolen = mesh.through_gateway(mesh.world.stranger, *lies)
    assert (stolen.verdict, len(stolen.elements)) == ((403, "certificate_unknown"), 2)


@pytest.mark.parametrize(
    ("lie", "verdict", "count"),
    [
        (lambda _: "", (400, "request_malformed"), 1),
        (forged, (403, "proxy_untrusted"), 2),
        (lambda client: forged(client, URI=istio.GATEWAY), (403, "proxy_untrusted"), 2),
        (lambda client: f"{forged(client)},Hash={'0' * 64};URI={istio.GATEWAY}", (400, "request_malformed"), 3),
    ],
    ids=["nothing", "the client's certificate", "and the gateway's name", "and the gateway's element"],
)
def test_a_workload_that_goes_past_the_gateway_is_nobody(
    mesh: Mesh, lie: Callable[[Credential], str], verdict: tuple[int, str], count: int
) -> None:
    told = lie(mesh.world.client)
    seen = mesh.past_gateway(mesh.stranger, *([(LIE, told)] if told else []))
    assert (seen.verdict, len(seen.elements), seen.upstream) == (verdict, count, [])
    assert seen.elements[-1]["URI"] == [STRANGER]


@pytest.mark.parametrize("told", [True, False])
def test_in_clear_text_the_header_is_taken_away(mesh: Mesh, *, told: bool) -> None:
    _, clear = mesh.sidecar()
    lie = ((LIE, f"{forged(mesh.world.client)},Hash={'0' * 64};URI={istio.GATEWAY}"),) if told else ()
    seen = mesh.world.ask(clear, None, *lie, peer=lambda port: Peer(host="127.0.0.1", port=port))
    assert (seen.verdict, seen.elements) == ((403, "certificate_missing"), [])


@pytest.mark.parametrize(
    ("forward", "verdict", "count"),
    [
        ("SANITIZE", (403, "certificate_missing"), 0),
        ("SANITIZE_SET", (400, "request_malformed"), 1),  # the gateway's certificate alone
        ("FORWARD_ONLY", (400, "request_malformed"), 1),  # the client's, and nobody vouches for it
        ("ALWAYS_FORWARD_ONLY", (400, "request_malformed"), 1),
    ],
)
def test_other_modes_of_the_sidecar_identify_nobody(
    mesh: Mesh, forward: str, verdict: tuple[int, str], count: int
) -> None:
    seen = mesh.through_gateway(mesh.world.client, http=istio.sidecar(forward))
    assert (seen.verdict, len(seen.elements)) == (verdict, count)


def test_the_wrong_number_of_hops_refuses_everybody(one_hop: Mesh) -> None:
    seen = one_hop.through_gateway(one_hop.world.client)
    assert (seen.verdict, len(seen.elements)) == ((400, "request_malformed"), 2)
