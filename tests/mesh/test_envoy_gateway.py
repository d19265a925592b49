"""Envoy Gateway asks ClientPolicy: docs/envoy-gateway.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import partner
import pytest
from mesh import envoy_gateway, examples
from mesh.pki import Authority
from mesh.world import World, forged, world
from redis_server import free_port

from authz.demo.ask import HANDSHAKE_FAILS, handshake


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("gateway"), examples.identity("envoy-gateway")) as made:
        yield made


def gateway(world: World, *, check: int | None = None, **told: Any) -> int:
    """Return the port of a Gateway with our policies, `xfcc` and `mode` in place of the ClientTrafficPolicy's own."""
    traffic = envoy_gateway.traffic_policy()
    if "xfcc" in told:
        traffic = traffic | {"headers": {"xForwardedClientCert": told.pop("xfcc")}}
    validation = traffic["tls"]["clientValidation"]
    traffic = traffic | {"tls": {"clientValidation": validation | {"mode": told.pop("mode", validation["mode"])}}}
    (port,) = world.front(envoy_gateway.listening(world, traffic, **told), check=check)
    return port


def test_by_default_authz_is_told_of_nobody(here: World) -> None:
    seen = here.ask(gateway(here, xfcc={}), here.client, ("x-forwarded-client-cert", forged(here.client)))
    assert (seen.verdict, seen.elements) == ((403, "certificate_missing"), [])
    (check,) = seen.checks
    assert check.attributes.source.certificate == ""


def test_our_policies_bring_one_element_with_the_whole_certificate(here: World) -> None:
    seen = here.ask(gateway(here), here.client)
    assert seen.verdict == (200, None)
    (element,) = seen.elements
    assert set(element) == {"Hash", "Cert", "Subject", "URI", "DNS"}
    assert element["Hash"] == [here.client.fingerprint]
    (check,) = seen.checks
    assert check.attributes.source.certificate == ""
    assert seen.sent_up("x-client-id") == [partner.CLIENT_ID]


def test_what_the_caller_says_of_itself_is_gone(here: World) -> None:
    lies = (("x-forwarded-client-cert", forged(here.client)), ("x-client-id", "root"))
    seen = here.ask(gateway(here), here.client, *lies)
    assert (seen.verdict, len(seen.elements)) == ((200, None), 1)
    assert seen.sent_up("x-client-id") == [partner.CLIENT_ID]
    stolen = here.ask(gateway(here), here.stranger, *lies)
    assert stolen.verdict == (403, "certificate_unknown")


def test_headers_with_underscores_end_at_envoy(here: World) -> None:
    seen = here.ask(gateway(here), here.client, ("x_client_id", "root"))
    assert (seen.answer.status, seen.checks, seen.upstream) == (400, [], [])


@pytest.mark.parametrize(
    ("xfcc", "lies", "verdict", "count"),
    [
        ({"mode": "SanitizeSet"}, True, (200, None), 1),  # Hash alone identifies; validity is not looked at
        ({"mode": "AppendForward", "certDetailsToAdd": ["Cert"]}, True, (400, "request_malformed"), 2),
        ({"mode": "ForwardOnly"}, False, (403, "certificate_missing"), 0),
        # Why these are never right: the caller is whoever it says it is.
        ({"mode": "ForwardOnly"}, True, (200, None), 1),
        ({"mode": "AlwaysForwardOnly"}, True, (200, None), 1),
    ],
)
def test_other_modes(
    here: World, *, xfcc: dict[str, Any], lies: bool, verdict: tuple[int, str | None], count: int
) -> None:
    who = here.stranger if xfcc["mode"].endswith("ForwardOnly") else here.client
    lie = (("x-forwarded-client-cert", forged(here.client)),) if lies else ()
    seen = here.ask(gateway(here, xfcc=xfcc), who, *lie)
    assert (seen.verdict, len(seen.elements)) == (verdict, count)


def test_who_must_bring_a_certificate(here: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    unknown = Authority("elsewhere", tmp_path_factory.mktemp("elsewhere")).issue(
        "unknown", *[], common_name=partner.CLIENT_ID
    )
    for who in (None, unknown):
        assert handshake(here.tls(gateway(here), who)) == HANDSHAKE_FAILS
    seen = here.ask(gateway(here, mode="VerifyIfGiven"), None)
    assert (seen.verdict, seen.elements) == ((403, "certificate_missing"), [])
    seen = here.ask(gateway(here, mode="RequireAny"), unknown)  # let in, and still nobody
    assert (seen.verdict, len(seen.elements)) == ((403, "certificate_unknown"), 1)


@pytest.mark.parametrize(
    ("target", "status", "path"),
    [
        ("/fhir//Patient/123", 200, "/fhir/Patient/123"),
        ("/fhir/x/../Patient/123", 200, "/fhir/Patient/123"),
        ("/fhir/Patient%2F123", 307, None),
        ("/fhir/Patient%5c123", 307, None),
    ],
)
def test_paths_as_authz_sees_them(here: World, target: str, status: int, path: str | None) -> None:
    seen = here.ask(gateway(here), here.client, target=target)
    assert seen.answer.status == status
    assert [check.attributes.request.http.path for check in seen.checks] == ([path] if path is not None else [])


def test_without_an_answer_in_time_nobody_passes(here: World) -> None:
    nobody = here.ask(gateway(here, check=free_port()), here.client)
    assert (nobody.answer.status, nobody.upstream) == (503, [])
    here.checks.delay_s = 2.0
    try:
        slow = here.ask(gateway(here, hurried=True), here.client)
    finally:
        here.checks.delay_s = 0.0
    assert (slow.answer.status, len(slow.checks), slow.upstream) == (503, 1, [])


def test_fail_open_lets_pass_what_nobody_judged(here: World) -> None:
    """And with it what only an answer of authz removes."""
    seen = here.ask(gateway(here, check=free_port(), fail_open=True), here.stranger, ("x-client-id", "root"))
    assert (seen.answer.status, seen.sent_up("x-client-id")) == (200, ["root"])


@pytest.mark.parametrize("retries", [0, 2])
def test_a_failed_check_is_asked_again_only_where_retries_are_set(here: World, retries: int) -> None:
    here.checks.fails = True
    try:
        seen = here.ask(gateway(here, retries=retries), here.client)
    finally:
        here.checks.fails = False
    assert (seen.answer.status, len(seen.checks), seen.upstream) == (503, 1 + retries, [])


def test_a_route_without_the_policy_asks_nobody(here: World) -> None:
    seen = here.ask(gateway(here, asks=False), here.stranger, ("x-client-id", "root"))
    assert (seen.answer.status, seen.checks, seen.sent_up("x-client-id")) == (200, [], ["root"])
