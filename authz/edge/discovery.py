"""Where an issuer says that its keys are.

Source: RFC 8414 section 3 and OpenID Connect Discovery 1.0 section 4.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import urlsplit

from authz.core.strict_json import read_object
from authz.edge.fetch import Unfetchable, shown


async def discover(issuer: str, get: Callable[[str], Awaitable[bytes]]) -> str:
    """Return the `jwks_uri` of the issuer's metadata, which must name the issuer itself (RFC 8414 section 3.3).

    Raises:
        Unfetchable: with what was wrong at each place where the metadata may be.
    """
    troubles: list[str] = []
    for url in _metadata_urls(issuer.rstrip("/")):
        try:
            return _jwks_uri(await get(url), issuer)
        except Unfetchable as failed:
            troubles.append(str(failed))
        except ValueError as wrong:
            troubles.append(f"{shown(url)}: {wrong}")
    raise Unfetchable(f"jwks_uri not discovered: {'; '.join(troubles)}")


def _metadata_urls(base: str) -> Iterator[str]:
    """Yield OpenID's form (issuer, then suffix) and RFC 8414's (suffix between host and path)."""
    yield f"{base}/.well-known/openid-configuration"
    url = urlsplit(base)
    yield f"{url.scheme}://{url.netloc}/.well-known/oauth-authorization-server{url.path}"


def _jwks_uri(document: bytes, issuer: str) -> str:
    try:
        metadata = read_object(document)
    except ValueError as broken:
        raise ValueError(f"not a metadata document: {broken}") from None
    if metadata.get("issuer") != issuer:
        raise ValueError("the metadata names another issuer")
    uri = metadata.get("jwks_uri")
    if not isinstance(uri, str):
        raise ValueError("the metadata has no jwks_uri")  # noqa: TRY004 counted with what else is wrong with it
    return uri
