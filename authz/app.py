"""The running service: facts kept fresh in the background, one call a decision, an audit line and a count for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from authz.assembly import (
    authorities_of,
    client_address_of,
    policy_source,
    rules_of,
    style_of,
)
from authz.core.decide import Deny, Verdict
from authz.edge import chance, clock
from authz.edge.audit import AuditLog, record
from authz.edge.cautions import cautions_of
from authz.edge.keys import KeyRing
from authz.edge.metrics import Decisions, Histogram, Number, Readings, numbers_of
from authz.edge.settings import Settings
from authz.edge.store.limiter import Limiter, open_store
from authz.edge.store.redis import RedisStore
from authz.edge.transport import NotReady
from authz.model import Reason, Refused, Request
from authz.service import Facts, Service
from authz.wire import request as wire_request
from authz.wire import response as wire_response
from authz.wire.encoding import encode

logger = logging.getLogger(__name__)

READY_WITHOUT_ALL_KEYS_S: Final = 30.0


class Authz:
    """All of the service but its sockets: `check` is the call, `run` keeps the facts fresh."""

    def __init__(self, settings: Settings, folder: Path, registry: CollectorRegistry, audit: AuditLog) -> None:
        rules = rules_of(settings, folder)
        self.cautions = cautions_of(settings)
        self._style = style_of(settings)
        self._client_address = client_address_of(settings)
        self._source = policy_source(settings)
        self._authorities, self._proxy_authorities = authorities_of(settings, folder)
        replicas = settings.quota.replicas
        store = open_store(settings.store, folder=folder, replicas=replicas)
        self.limiter = Limiter(store, replicas=replicas, clock=clock.monotonic_us)
        self.keys = KeyRing(settings.issuers)
        self.service = Service(rules, self.limiter, self.keys.want)
        self._audit = audit
        self._decisions = Decisions()
        registry.register(self._decisions)
        registry.register(Readings(self))
        if isinstance(store, RedisStore):
            told = "Time of an answered call to the store."
            registry.register(Histogram("clientpolicy_store_call_seconds", told, store.counts.histogram))
        self._facts: Facts | None = None
        self._started_s = clock.monotonic_s()
        self.on_ready: Callable[[], None] = lambda: None

    async def check(self, data: bytes) -> bytes:
        """Return the serialised CheckResponse to a serialised CheckRequest.

        Raises:
            NotReady: there is no complete set of facts yet.
        """
        facts = self._facts
        if facts is None:
            raise NotReady
        started_ns = clock.elapsed_ns()
        now_us = clock.now_us()
        decision_id = chance.decision_id()
        request: Request | None = None
        verdict: Verdict | None = None
        try:
            request = wire_request.read(data, self._client_address)
            verdict = await self.service.judge(request, facts, now_us)
            return self._encoded(verdict, decision_id, request)
        except Refused as refused:
            verdict = Deny(refused)
        except Exception as bug:  # a caller may have found the input that causes it, so Envoy must not decide
            logger.exception("a decision failed", extra={"decision_id": decision_id})
            verdict = Deny(Refused(Reason.INTERNAL, type(bug).__name__))
        finally:  # also when the caller went away: then there is no verdict, and that is what gets written
            self._note(verdict, request, decision_id, now_us, started_ns)
        return self._encoded(verdict, decision_id, request)

    def _encoded(self, verdict: Verdict, decision_id: str, request: Request | None) -> bytes:
        answered = wire_response.answer(verdict, decision_id, request.target if request else "", self._style)
        return encode(answered, verdict, decision_id)

    def _note(
        self, verdict: Verdict | None, request: Request | None, decision_id: str, now_us: int, started_ns: int
    ) -> None:
        duration_us = (clock.elapsed_ns() - started_ns) // 1000
        self._audit.put(record(verdict, request, decision_id, clock.rfc3339(now_us), duration_us))
        self._decisions.count(verdict, duration_us)

    @property
    def missing(self) -> tuple[str, ...]:
        """What readiness waits for; empty once ready, and never filled again."""
        if self._facts is not None:
            return ()
        why = f" ({self._source.trouble})" if self._source.trouble else ""
        policies = () if self._source.policies is not None else (f"policies: not loaded{why}",)
        return (*policies, *self.keys.waiting)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is told beside readiness: clients that are not served yet, while others are."""
        return tuple(filter(None, (self._authorities.remark,)))

    def _publish(self) -> None:
        """Swap in the facts, once they are complete, or complete enough after a while."""
        policies = self._source.policies
        if policies is None:
            return
        missing = self.keys.missing
        patience = clock.monotonic_s() - self._started_s >= READY_WITHOUT_ALL_KEYS_S
        if missing and self._facts is None and not (patience and len(missing) < len(self.keys.by_name)):
            return
        first = self._facts is None
        self._facts = Facts(policies=policies, trusted=self.keys.trusted)
        if first:
            logger.info("ready", extra={"policies": policies.generation, "issuers_without_keys": list(missing)})
            self.on_ready()

    async def open(self) -> None:
        """Get what the source of policies needs to begin.

        Raises:
            NoPolicies: there is nothing to read them with.
        """
        await self._source.open()

    async def close(self) -> None:
        await self._source.close()

    async def run(self) -> None:
        """Keep policies, keys and CAs fresh until cancelled."""
        await self.limiter.open()
        await self.keys.open(self._publish)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.keys.run())
                tasks.create_task(self._source.run(self._publish))
                tasks.create_task(self._authorities.run(self.service.trust))
                if self._proxy_authorities is not None:
                    tasks.create_task(self._proxy_authorities.run(self.service.trust_proxies))
                tasks.create_task(self._lose_patience())
        finally:
            await self.keys.close()
            await self.limiter.close()

    async def _lose_patience(self) -> None:
        await asyncio.sleep(READY_WITHOUT_ALL_KEYS_S)
        while self._facts is None:
            self._publish()
            await asyncio.sleep(1)

    def numbers(self) -> Iterator[Number]:
        """Return what the metrics page tells besides the decisions (`edge.metrics.Source`)."""
        service = self.service
        yield "gauge", "clientpolicy_ready", "1 once the facts were complete.", {}, float(self._facts is not None)
        told = "Settings that open more than it seems, as the log and `clientpolicy lint --config` tell them."
        yield "gauge", "clientpolicy_configuration_cautions", told, {}, len(self.cautions)
        policies = self._source.policies
        generation = policies.generation if policies is not None else 0
        yield "gauge", "clientpolicy_policy_generation", "Times that policies changed.", {}, generation
        yield from self._source.numbers()
        yield from self._authorities.numbers()
        if self._proxy_authorities is not None:
            yield from self._proxy_authorities.numbers()
        yield from numbers_of("certificate", service.certificates)
        yield from numbers_of("stranger", service.strangers)
        yield from numbers_of("token", service.tokens)
        for name, keys in self.keys.by_name.items():
            labels = {"issuer": name}
            yield "counter", "clientpolicy_key_fetches", "Fetches of an issuer's keys.", labels, keys.fetches
            told = "Fetches of an issuer's keys that failed; the log has each one's reason."
            yield "counter", "clientpolicy_key_fetch_errors", told, labels, keys.errors
            yield (
                "gauge",
                "clientpolicy_keys",
                "Usable keys; 0: the issuer's tokens are refused.",
                labels,
                keys.usable,
            )
            told = "When an issuer's key set was last read; 0: never."
            yield "gauge", "clientpolicy_keys_loaded_timestamp_seconds", told, labels, keys.loaded_at
        yield from self.limiter.numbers()
        yield "counter", "clientpolicy_audit_dropped", "Audit lines lost.", {}, self._audit.dropped
