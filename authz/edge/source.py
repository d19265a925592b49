"""Where policies come from: each source keeps its own loop, and tells when what it knows has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from authz.edge.metrics import Number
from authz.model import Policies, Standing
from authz.policy import ClientPolicy, FieldError

Cautions = Callable[[ClientPolicy], Iterable[FieldError]]


def no_cautions(_: ClientPolicy) -> Iterable[FieldError]:
    """Return nothing to be told of a policy."""
    return ()


class NoPolicies(Exception):  # noqa: N818 it is what came of asking
    """Why policies cannot be had from where they are; safe to show."""


class PolicySource(Protocol):
    """Keeps the policies fresh; `policies` is swapped whole, and None until all of them were read once."""

    @property
    def where(self) -> str:
        """What a person calls it: a path, or a cluster."""

    @property
    def policies(self) -> Policies | None: ...

    @property
    def trouble(self) -> str:
        """Why they are not read just now; empty where they are."""

    async def open(self) -> None:
        """Get what is needed to begin.

        Raises:
            NoPolicies: there is nothing to read them with.
        """

    async def load(self) -> Policies:
        """Return what is there now, read once, for commands that end.

        Raises:
            NoPolicies, OSError: they cannot be read.
        """

    async def run(self, changed: Callable[[], None]) -> None:
        """Keep them fresh until cancelled; call `changed` after each swap."""

    async def close(self) -> None: ...

    def numbers(self) -> Iterable[Number]: ...


def standings(policies: Policies | None) -> dict[Standing, int]:
    """Return how many policies of each standing can be found by a certificate or a token."""
    counts = dict.fromkeys(Standing, 0)
    if policies is None:
        return counts
    found = {credential.client for credential in policies.by_fingerprint.values()} | set(policies.by_token.values())
    for client in found:
        counts[client.standing] += 1
    return counts
