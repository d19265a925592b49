"""`helm test`: real Checks to a running authz, from the place of the proxy. Does it refuse what it should?

What authz answers is the verdict on its configuration: one refusal too few, and the test fails.
Source: envoy.service.auth.v3 (CheckRequest, CheckResponse); docs/operations.md says when to run it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from authz.model import Reason
from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"
CALL_TIMEOUT_S: Final = 5.0
WAIT_S: Final = 90.0  # for the operator to issue, and the kubelet to mount
PAUSE_S: Final = 1.0
SOURCE: Final = "192.0.2.77"  # RFC 5737: nobody's, so that nobody else's anonymous quota is spent
UNSIGNED: Final = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJub2JvZHkifQ."  # {"alg": "none"}, {"sub": "nobody"}
STRANGER: Final = f"Hash={'ab' * 32};URI=spiffe://healthtech.dev/client/nobody"
# Besides Patient/1: what a rule of `public` that is too wide opens.
PRIVATE: Final = (
    ("GET", "Patient?name=a"),
    ("POST", "Patient/_search"),
    ("GET", "Patient/1/$everything"),
    ("GET", "Observation/1"),
    ("GET", "Encounter?patient=1"),
    ("PUT", "Patient/1"),
)
OWN_TYPE: Final = "StructureDefinition"  # where no patient's data is, should this client's certificate be stolen
ALLOWED: Final = frozenset({Reason.ALLOWED.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request and the reasons that are right answers to it."""

    name: str
    path: str
    expected: frozenset[str]
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)


def refusals(fhir: str, chain: Callable[[str], str], *, proven: bool) -> tuple[Ask, ...]:
    """Return what nobody may be allowed, however configured; `chain` completes an XFCC with the proxies' hops."""
    patient, stranger = f"{fhir}/Patient/1", {"x-forwarded-client-cert": chain(STRANGER)}
    malformed = frozenset({"request_malformed"})
    # With a client of `certificate.source: None` anywhere, who has no certificate is asked for a token.
    nobody = frozenset({"certificate_missing", "token_missing"})
    unknown = frozenset({"certificate_unknown" if proven else "proxy_untrusted"})
    return (
        Ask(name="no certificate, no token", path=patient, expected=nobody),
        *(
            Ask(name=f"nobody's {method} {path}", path=f"{fhir}/{path}", method=method, expected=nobody)
            for method, path in PRIVATE
        ),
        Ask(name="a certificate of nobody", path=patient, headers=stranger, expected=unknown),
        Ask(
            name="one certificate too many",
            path=patient,
            headers={"x-forwarded-client-cert": f"{STRANGER},{chain(STRANGER)}"},
            expected=malformed,
        ),
        Ask(name="an ambiguous path", path=f"{fhir}/metadata/..%2fPatient/1", expected=frozenset({"path_ambiguous"})),
        Ask(
            name="another method in a header",
            path=patient,
            headers={"x-http-method-override": "PUT"},
            expected=malformed,
        ),
    )


def rights(fhir: str, xfcc: str) -> tuple[Ask, ...]:
    """Return what the test's own client may and may not: it has `.rs` of OWN_TYPE, and needs no token."""
    own = {"x-forwarded-client-cert": xfcc}
    allowed, scope = f"{fhir}/{OWN_TYPE}/1", frozenset({"scope_missing"})
    outside = Ask(
        name="a path outside FHIR", path="/clientpolicy-test", headers=own, expected=frozenset({"route_not_allowed"})
    )
    forged = own | {"authorization": f"Bearer {UNSIGNED}"}
    unsigned = frozenset({"token_algorithm", "token_malformed", "token_issuer"})
    return (
        Ask(name="what the client may", path=allowed, headers=own, expected=ALLOWED),
        Ask(name="another type than its scope", path=f"{fhir}/Patient/1", headers=own, expected=scope),
        Ask(name="a write", path=allowed, method="PUT", headers=own, expected=scope),
        *([] if not fhir else [outside]),  # everything is FHIR where its base is the root
        Ask(name="an unsigned token", path=allowed, headers=forged, expected=unsigned),
    )


def element(pem: bytes) -> str:
    """Return the XFCC element that Envoy writes of a certificate with `cert: true`.

    Raises:
        ValueError: not a certificate.
    """
    certificate = x509.load_pem_x509_certificate(pem)
    return f'Hash={certificate.fingerprint(hashes.SHA256()).hex()};Cert="{quote(pem.decode(), safe="")}"'


class Authz:
    """The service under test. `ask` returns the decision's reason, or how the call failed."""

    def __init__(self, target: str, tls: Path | None) -> None:
        if tls is None:
            channel = grpc.insecure_channel(target)
        else:
            names = ("tls.key", "tls.crt", "ca.crt")
            if missing := [name for name in names if not (tls / name).is_file()]:
                raise ValueError(f"{tls}: without {', '.join(missing)}; a Secret with {', '.join(names)} is expected")
            key, cert, authority = ((tls / name).read_bytes() for name in names)
            channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(authority, key, cert))
        self._channel = channel
        self._check = channel.unary_unary(
            CHECK, request_serializer=CheckRequest.SerializeToString, response_deserializer=CheckResponse.FromString
        )

    def close(self) -> None:
        self._channel.close()

    def ask(self, ask: Ask) -> str:
        message = CheckRequest()
        message.attributes.source.address.socket_address.address = SOURCE
        http = message.attributes.request.http
        http.method, http.path, http.scheme, http.host = ask.method, ask.path, "https", "clientpolicy-test"
        http.headers.update(ask.headers)
        try:
            response = self._check(message, timeout=CALL_TIMEOUT_S, wait_for_ready=True)
        except grpc.RpcError as failed:
            return f"no answer: {failed.code().name}"
        told = response.dynamic_metadata.fields["reason"].string_value
        # The status decides, as for Envoy; the reason only explains it.
        return Reason.ALLOWED.value if response.status.code == 0 else told or "denied without a reason"


def first_certificate(credential: Path, authz: Authz, ask: Callable[[bytes], Ask]) -> bytes:
    """Return the client's certificate once authz knows it: it was issued a moment ago, and files are mounted late."""
    ends = time.monotonic() + WAIT_S
    while True:
        pem = _read(credential / "tls.crt")
        if pem and authz.ask(ask(pem)) == Reason.ALLOWED.value:
            return pem
        if time.monotonic() > ends:
            return pem
        time.sleep(PAUSE_S)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def run(asked: argparse.Namespace) -> int:
    authz = Authz(asked.target, asked.tls)

    # Only a proxy has what `identity.proxyCa` vouches for: then the test tries that nobody passes for one.
    proven = asked.hops == 1 or asked.proxy_proof != "ca"

    def chain(client: str) -> str:
        sha256 = asked.proxy_proof if asked.proxy_proof not in ("ca", "verified") else "cd" * 32
        hop = f"Hash={sha256};URI={asked.proxy}"
        return ",".join([client, *[hop] * (asked.hops - 1)])

    try:
        fhir = asked.fhir.rstrip("/")
        asks = list(refusals(fhir, chain, proven=proven))
        if asked.credential is not None and proven:
            pem = first_certificate(asked.credential, authz, lambda pem: rights(fhir, chain(element(pem)))[0])
            if not pem:
                print(f"FAILED  {asked.credential}: no tls.crt after {WAIT_S:.0f} s: does the operator issue it?")
                return 1
            asks += rights(fhir, chain(element(pem)))
        return judge(authz, asks)
    finally:
        authz.close()


def judge(authz: Authz, asks: Sequence[Ask]) -> int:
    """Print a line for each, and return 0 if all answers are right, else 1."""
    wrong = 0
    for ask in asks:
        got = authz.ask(ask)
        right = got in ask.expected
        wrong += not right
        expected = "" if right else f", expected {' or '.join(sorted(ask.expected))}"
        print(f"{'ok' if right else 'FAILED':8}{ask.name}: {got}{expected}")
    print(f"{len(asks) - wrong} of {len(asks)} as they should be")
    return 1 if wrong else 0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m authz.probe", description="real Checks to a running authz")
    parser.add_argument("--target", required=True, help="HOST:PORT of authz's gRPC")
    parser.add_argument("--credential", type=Path, help="a client's Secret, mounted; left out: only refusals are tried")
    parser.add_argument("--fhir", default="/fhir", help="fhir.basePath")
    parser.add_argument("--hops", type=int, default=1, help="identity.trustedHops")
    parser.add_argument("--proxy", default="", help="one of identity.trustedProxies")
    parser.add_argument(
        "--proxy-proof",
        default="verified",
        help="by what authz knows a proxy: verified, ca, or one of identity.proxyFingerprints",
    )
    parser.add_argument("--tls", type=Path, help="a folder with ca.crt, tls.crt and tls.key")
    try:
        return run(parser.parse_args(arguments))
    except (OSError, ValueError) as failed:
        print(f"FAILED  {failed}")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
