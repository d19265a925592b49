"""The policies of a cluster, listed and watched; it needs to get, list and watch clientpolicies, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from authz.edge import clock
from authz.edge.kubernetes.api import Api, Connect, Kind, Trouble
from authz.edge.kubernetes.census import Census, Fortune
from authz.edge.kubernetes.connect import Connection, NoCluster
from authz.edge.kubernetes.connect import connect as connect_by_environment
from authz.edge.kubernetes.objects import Document, Held, Meta, read
from authz.edge.kubernetes.reflector import Reflector, Timing, Turns
from authz.edge.metrics import Number
from authz.edge.source import Cautions, NoPolicies, no_cautions
from authz.model import Policies, Standing
from authz.policy import ClientPolicy, FieldError
from authz.policy.ceilings import Ceiling

logger = logging.getLogger(__name__)

GATHER_S: Final = 0.005  # a mass edit is one swap for all that comes in this time
GATHER_SHARE: Final = 10  # swaps shall take a tenth of the time at most, however much there is to judge
GATHER_MAX_S: Final = 0.2  # but none waits for longer
ERRORS_TOLD_MAX: Final = 10  # of one policy, in the log
TOLD_MAX: Final = 300  # characters of each


class KubernetesPolicies:
    """The ClientPolicies of some namespaces, or of all (`edge.source.PolicySource`)."""

    def __init__(
        self,
        namespaces: tuple[str, ...] = (),
        *,
        may_shadow: bool,
        ceilings: tuple[Ceiling, ...] = (),
        cautions: Cautions = no_cautions,
        connect: Connect | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._may_shadow = may_shadow
        self._ceilings = ceilings
        self._cautions = cautions
        self._api = Api(connect or _connect)
        self._census = Census()
        self._turns = Turns()
        self._changed = asyncio.Event()
        self._replacing = 0  # lists that are being taken over; what they have half done is not shown
        self._told: dict[str, tuple[str, int]] = {}  # which versions have been said to be invalid
        self._generation = 0
        self.policies: Policies | None = None
        self._reflectors: Final = tuple(
            Reflector(self._api, namespace, self, timing or Timing()) for namespace in namespaces or (None,)
        )

    @property
    def where(self) -> str:
        return f"the cluster {self._api.server}".rstrip()

    @property
    def trouble(self) -> str:
        return "; ".join(f"{one.trouble.kind.value}: {one.trouble}" for one in self._reflectors if one.trouble)

    async def open(self) -> None:
        """Find credentials.

        Raises:
            NoPolicies: there are none.
        """
        try:
            await self._api.open()
        except NoCluster as none:
            raise NoPolicies(str(none)) from None

    async def close(self) -> None:
        await self._api.close()

    async def load(self) -> Policies:
        """Return what the cluster has now, listed once.

        Raises:
            NoPolicies: without credentials, forbidden, or no answer.
        """
        await self.open()
        try:
            for reflector in self._reflectors:
                await reflector.renew()
        except Trouble as trouble:
            raise NoPolicies(f"{self._api.server}: {trouble.kind.value}: {trouble}") from None
        finally:
            await self.close()
        return self._swap()

    async def run(self, changed: Callable[[], None]) -> None:
        """Keep true to the cluster until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for reflector in self._reflectors:
                tasks.create_task(reflector.run())
            tasks.create_task(self._publish(changed))

    async def _publish(self, changed: Callable[[], None]) -> None:
        gather_s = GATHER_S
        while True:
            await self._changed.wait()
            await asyncio.sleep(gather_s)
            self._changed.clear()
            if self._replacing:
                self._changed.set()
                continue
            if not all(reflector.is_listed for reflector in self._reflectors):
                continue  # the last one to be listed sets `_changed`
            began_s = clock.monotonic_s()
            self._swap()
            gather_s = min(GATHER_MAX_S, max(GATHER_S, GATHER_SHARE * (clock.monotonic_s() - began_s)))
            changed()

    def _swap(self) -> Policies:
        is_first = self.policies is None
        self._generation += 1
        self.policies, fortunes = self._census.policies(self._generation)
        for fortune in fortunes:
            _tell_fortune(fortune)
        if is_first:
            logger.info("policies loaded", extra={"generation": self._generation, "policies": len(self._census)})
        return self.policies

    # What a Reflector tells (`reflector.Sink`).

    def look(self, document: Document, meta: Meta) -> Held | None:
        before = self._census.get(meta.name)
        if before is not None and (before.meta.uid, before.meta.version) == (meta.uid, meta.version):
            return None
        held, errors = read(
            document, meta, before, may_shadow=self._may_shadow, ceilings=self._ceilings, judged=self._caution
        )
        if errors and self._told.get(meta.name) != (meta.uid, meta.generation):
            self._told[meta.name] = meta.uid, meta.generation
            _tell_invalid(held, errors)
        return held

    def _caution(self, policy: ClientPolicy) -> None:
        """Tell what of a valid policy does less, or more, than it seems to."""
        told = [str(caution)[:TOLD_MAX] for caution in islice(self._cautions(policy), ERRORS_TOLD_MAX)]
        if told:
            name = f"{policy.metadata.namespace}/{policy.metadata.name}"
            logger.warning("policy opens more or does less than it seems", extra={"policy": name, "cautions": told})

    def put(self, held: Held) -> None:
        before = self._census.get(held.meta.name)
        self._census.put(held)
        if before is None or before._replace(meta=held.meta) != held or before.meta.created != held.meta.created:
            self._changed.set()

    def drop(self, meta: Meta) -> None:
        before = self._census.get(meta.name)
        if before is not None and before.meta.uid == meta.uid:
            self._forget(meta.name)
            self._changed.set()

    def _forget(self, name: str) -> None:
        self._census.drop(name)
        self._told.pop(name, None)

    async def replace(self, namespace: str | None, present: set[str], changed: list[Held]) -> None:
        gone = self._census.missing(namespace, present)
        self._replacing += 1
        try:
            for name in gone:
                self._forget(name)
                await self._turns.rest()
            for held in changed:
                self._census.put(held)
                await self._turns.rest()
        finally:
            self._replacing -= 1
        if gone or changed or self.policies is None:
            self._changed.set()

    def numbers(self) -> Iterator[Number]:
        now_s = clock.monotonic_s()
        age_s = now_s - min(one.confirmed_s for one in self._reflectors)
        yield "gauge", "clientpolicy_policies_age_seconds", "Since the API last confirmed the policies.", {}, age_s
        yield "gauge", "clientpolicy_policy_errors", "Errors in policies.", {}, self._census.errors
        for standing, count in self._census.standings.items():
            yield "gauge", "clientpolicy_policies", "Policies by standing.", {"standing": standing.value}, count
        errors: Counter[Kind] = Counter()
        for reflector in self._reflectors:
            errors.update(reflector.errors)
        for kind in Kind:
            told = "Lists and watches of policies that came to nothing."
            yield "counter", "clientpolicy_policy_watch_errors", told, {"kind": kind.value}, errors[kind]
        relists = sum(max(0, reflector.lists - 1) for reflector in self._reflectors)
        yield "counter", "clientpolicy_policy_relists", "Lists of policies after the first.", {}, relists


async def _connect() -> Connection:
    return await connect_by_environment(connections_max=0)  # each namespace's watch holds one


def _tell_invalid(held: Held, errors: tuple[FieldError, ...]) -> None:
    is_refused = held.client.standing is Standing.INVALID
    logger.warning(
        "policy invalid; its client is refused" if is_refused else "policy invalid; its last good version holds",
        extra={
            "policy": held.meta.name,
            "generation": held.meta.generation,
            "errors": [str(error)[:TOLD_MAX] for error in errors[:ERRORS_TOLD_MAX]],
        },
    )


def _tell_fortune(fortune: Fortune) -> None:
    if fortune.lost is None:
        logger.info("policy conflicts no longer", extra={"policy": fortune.name})
        return
    winner, (kind, value) = fortune.lost
    told = {"policy": fortune.name, "with": winner, "claim": f"{kind} {value}"}
    logger.warning("policy conflicts; its client is refused", extra=told)
