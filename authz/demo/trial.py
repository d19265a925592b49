"""The servers of a trial on Kubernetes: a small OAuth server and FHIR API, behind an Envoy that verifies clients.

For trials only: any client id is registered whose certificate carries its SPIFFE URI, and nothing outlives the process.
The OAuth server believes x-forwarded-client-cert; the chart's NetworkPolicy lets only the gateway and authz reach it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import re
import signal
import ssl
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from aiohttp import web

from authz.core import forwarded
from authz.demo.fhir import FhirApi
from authz.demo.mint import Mint
from authz.demo.oauth import LAUNCH_PATIENT, AuthorizationServer, Caller, Registration
from authz.demo.ports import serve
from authz.edge.ops import every_address
from authz.model import Refused

FHIR_PORT: Final = 8080
OAUTH_PORT: Final = 8081
PATIENT: Final = "123"
REDIRECT_URI: Final = "https://localhost/callback"
SCOPES: Final = frozenset(
    {
        LAUNCH_PATIENT,
        "patient/Patient.read",
        "patient/Observation.read",
        "patient/*.read",
        "system/Patient.read",
        "system/*.read",
    }
)
_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_XFCC: Final = "x-forwarded-client-cert"


class TrialServer(AuthorizationServer):
    """Registers whoever has the URI of its client id in the certificate; the operator issued that."""

    def registered(self, client_id: str) -> Registration | None:
        if not _CLIENT_ID.fullmatch(client_id):
            return None
        uri = f"spiffe://healthtech.dev/client/{client_id}"
        return Registration(client_id=client_id, san_uri=uri, scopes=SCOPES, redirect_uri=REDIRECT_URI)

    @property
    def metadata(self) -> dict[str, object]:
        return super().metadata | {"scopes_supported": sorted(SCOPES)}


def of_gateway(request: web.Request) -> Caller | None:
    """Return whom the gateway verified; None unless its header tells of exactly one certificate."""
    headers = request.headers.getall(_XFCC, [])
    try:
        (element,) = forwarded.parse(headers[0]) if len(headers) == 1 else ()
        digest = bytes.fromhex(element.hash or "")
    except (Refused, ValueError):
        return None
    return Caller(frozenset(element.uris), base64.urlsafe_b64encode(digest).rstrip(b"=").decode()) if digest else None


async def run(
    issuer: str, audience: str, tls: ssl.SSLContext, ports: tuple[int, int] = (FHIR_PORT, OAUTH_PORT)
) -> None:
    """Serve the FHIR API over HTTP and the OAuth server over HTTPS, until SIGTERM or SIGINT."""
    oauth = TrialServer(Mint(issuer), f"{issuer}/token", audience, PATIENT, caller=of_gateway)
    fhir = FhirApi(oauth.metadata)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with AsyncExitStack() as stack:
        for app, port, secured in ((fhir.app, ports[0], None), (oauth.app, ports[1], tls)):
            opened = every_address(port)
            stack.push_async_callback((await serve(app, {opened: secured})).cleanup)
        await ended.wait()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m authz.demo.trial", description=__doc__)
    parser.add_argument("--issuer", required=True, help="`iss` of the tokens")
    parser.add_argument("--audience", required=True, help="`aud` of the tokens")
    parser.add_argument("--tls", required=True, type=Path, metavar="FOLDER", help="with tls.crt and tls.key")
    parser.add_argument("--ports", type=int, nargs=2, default=(FHIR_PORT, OAUTH_PORT), metavar=("FHIR", "OAUTH"))
    asked = parser.parse_args(arguments)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        tls.load_cert_chain(asked.tls / "tls.crt", asked.tls / "tls.key")
        asyncio.run(run(asked.issuer, asked.audience, tls, tuple(asked.ports)))
    except OSError as failed:
        print(f"trial: {asked.tls}: {failed}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
