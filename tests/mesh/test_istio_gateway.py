"""Istio's gateway asks ClientPolicy: docs/istio.md, "At the gateway"."""

from __future__ import annotations

from collections.abc import Iterator

import partner
import pytest
from mesh import examples, istio
from mesh.envoys import Config, Listening, server_tls
from mesh.world import World, forged, world
from redis_server import free_port

from authz.demo.ask import HANDSHAKE_FAILS, handshake


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("gateway"), examples.identity("istio")) as made:
        yield made


@pytest.fixture(scope="module")
def two_hops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An authz that was told of the sidecars, behind a gateway that asks by itself."""
    with world(tmp_path_factory.mktemp("two-hops"), examples.identity("istio", "values-sidecar.yaml")) as made:
        yield made


def gateway(world: World, http: Config | None = None, *, check: int | None = None, mutual: bool = True) -> int:
    tls = server_tls(world.server, world.partners.file, required=mutual)
    (port,) = world.front(Listening(http or istio.gateway(), tls), check=check)
    return port


def test_authz_gets_one_element_with_the_whole_certificate(here: World) -> None:
    seen = here.ask(gateway(here), here.client)
    assert seen.verdict == (200, None)
    (element,) = seen.elements
    assert set(element) == {"Hash", "Cert", "Subject", "URI", "DNS"}  # no By: the gateway's certificate has no URI
    assert element["Hash"] == [here.client.fingerprint]
    assert element["URI"] == [f"spiffe://example.org/client/{partner.CLIENT_ID}"]
    assert element["DNS"] == ["app.partner.example"]
    (check,) = seen.checks
    assert check.attributes.source.certificate == ""  # the provider sends none: the header is all there is
    assert seen.sent_up("x-client-id") == [partner.CLIENT_ID]


def test_what_the_caller_says_of_itself_is_gone(here: World) -> None:
    lies = (("x-forwarded-client-cert", forged(here.client)), ("x-client-id", "root"), ("x_client_id", "root"))
    seen = here.ask(gateway(here), here.client, *lies, ("x-patient-id", "7"), ("x_patient_id", "7"))
    assert seen.verdict == (200, None)
    assert [element["Hash"] for element in seen.elements] == [[here.client.fingerprint]]
    assert seen.sent_up("x-client-id") == [partner.CLIENT_ID]
    assert seen.sent_up("x-patient-id") == ["123"]  # of the token
    stolen = here.ask(gateway(here), here.stranger, *lies)
    assert stolen.verdict == (403, "certificate_unknown")
    assert [element["Hash"] for element in stolen.elements] == [[here.stranger.fingerprint]]


def test_no_header_takes_another_path_to_the_upstream(here: World) -> None:
    names = ("x-original-url", "X-Rewrite-URL", "x_original-uri", "x-http-path-override", "script_name", "PATH_INFO")
    seen = here.ask(gateway(here), here.client, *((name, "/fhir/Patient/124") for name in names))
    assert (seen.verdict, seen.sent_up("x-patient-id")) == ((200, None), ["123"])
    assert [seen.sent_up(name.lower().replace("_", "-")) for name in names] == [[]] * len(names)


@pytest.mark.parametrize("header", ["x-method", "X_HTTP_Method"])
def test_header_that_asks_for_another_method_ends_the_request(here: World, header: str) -> None:
    seen = here.ask(gateway(here), here.client, (header, "DELETE"))
    assert (seen.verdict, seen.upstream) == ((400, "request_malformed"), [])


def test_no_certificate_no_connection_unless_it_is_optional(here: World) -> None:
    assert handshake(here.tls(gateway(here), None)) == HANDSHAKE_FAILS
    for lie in ((), (("x-forwarded-client-cert", forged(here.client)),)):
        seen = here.ask(gateway(here, mutual=False), None, *lie)
        assert (seen.verdict, seen.elements) == ((403, "certificate_missing"), [])


@pytest.mark.parametrize(
    ("forward", "lies", "verdict", "count"),
    [
        ("SANITIZE", True, (403, "certificate_missing"), 0),
        ("FORWARD_ONLY", False, (403, "certificate_missing"), 0),
        ("APPEND_FORWARD", True, (400, "request_malformed"), 2),
        ("APPEND_FORWARD", False, (200, None), 1),
        # Why these are never right: the caller is whoever it says it is.
        ("FORWARD_ONLY", True, (200, None), 1),
        ("ALWAYS_FORWARD_ONLY", True, (200, None), 1),
    ],
)
def test_other_modes_of_the_gateway(
    here: World, *, forward: str, lies: bool, verdict: tuple[int, str | None], count: int
) -> None:
    lie = (("x-forwarded-client-cert", forged(here.client)),) if lies else ()
    seen = here.ask(gateway(here, istio.gateway(forward)), here.stranger if count == 1 and lies else here.client, *lie)
    assert (seen.verdict, len(seen.elements)) == (verdict, count)


@pytest.mark.parametrize("lies", [False, True])
def test_the_wrong_number_of_hops_refuses_everybody(two_hops: World, *, lies: bool) -> None:
    lie = (("x-forwarded-client-cert", forged(two_hops.client, URI=istio.GATEWAY)),) if lies else ()
    seen = two_hops.ask(gateway(two_hops), two_hops.client, *lie)
    assert (seen.verdict, len(seen.elements)) == ((400, "request_malformed"), 1)


def test_without_an_answer_in_time_nobody_passes(here: World) -> None:
    nobody = here.ask(gateway(here, check=free_port()), here.client)
    assert (nobody.answer.status, nobody.upstream) == (503, [])
    here.checks.delay_s = 2.0
    try:
        slow = here.ask(gateway(here, istio.gateway(hurried=True)), here.client)
    finally:
        here.checks.delay_s = 0.0
    assert (slow.answer.status, len(slow.checks), slow.upstream) == (503, 1, [])


def test_an_authz_that_is_not_ready_is_asked_once_and_nobody_passes(here: World) -> None:
    here.checks.fails = True
    try:
        seen = here.ask(gateway(here), here.client)
    finally:
        here.checks.fails = False
    assert (seen.answer.status, len(seen.checks), seen.upstream) == (503, 1, [])


@pytest.mark.parametrize(
    ("target", "verdict", "path"),
    [
        ("/fhir/x/../Patient/123", (200, None), "/fhir/Patient/123"),  # BASE
        ("/fhir//Patient/123", (400, "path_ambiguous"), "/fhir//Patient/123"),
        ("/fhir/Patient%2F123", (400, "path_ambiguous"), "/fhir/Patient%2F123"),
    ],
)
def test_paths_as_authz_sees_them(here: World, target: str, verdict: tuple[int, str | None], path: str) -> None:
    seen = here.ask(gateway(here), here.client, target=target)
    assert seen.verdict == verdict
    (check,) = seen.checks
    assert check.attributes.request.http.path == path


def test_the_dry_run_annotation_is_no_shadow_mode(here: World) -> None:
    """What istiod writes for it is a rule that RBAC enforces: Envoy refuses everybody and asks nobody."""
    seen = here.ask(gateway(here, istio.gateway(dry_run=True)), here.client)
    assert (seen.answer.status, seen.answer.body, seen.checks) == (403, b"RBAC: access denied", [])
