"""The running service: facts kept fresh in the background, one call a decision, an audit line and a count for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from watchfiles import awatch

from authz.assembly import client_address_of, policy_folder, rules_of, style_of
from authz.core.decide import Deny, Verdict
from authz.edge import chance, clock
from authz.edge.audit import AuditLog, record
from authz.edge.keys import KeyRing
from authz.edge.metrics import CallTimes, Decisions, Number, Readings
from authz.edge.settings import Settings
from authz.edge.store.limiter import Limiter, open_store
from authz.edge.store.redis import RedisStore
from authz.edge.transport import NotReady
from authz.model import Policies, Reason, Refused, Request
from authz.service import Facts, Service
from authz.wire import request as wire_request
from authz.wire import response as wire_response
from authz.wire.encoding import encode

logger = logging.getLogger(__name__)

READY_WITHOUT_ALL_KEYS_S: Final = 30.0
RESCAN_MS: Final = 2_000  # where the file system tells nothing (network mounts), a change is seen this late


class Authz:
    """All of the service but its sockets: `check` is the call, `run` keeps the facts fresh."""

    def __init__(self, settings: Settings, folder: Path, registry: CollectorRegistry, audit: AuditLog) -> None:
        rules = rules_of(settings, folder)
        self._settings = settings
        self._style = style_of(settings)
        self._client_address = client_address_of(settings)
        self._folder = policy_folder(settings)
        replicas = settings.quota.replicas
        store = open_store(
            settings.store.url,
            folder=folder,
            prefix=settings.store.prefix,
            hash_key=settings.store.hash_key.encode(),
            replicas=replicas,
        )
        self.limiter = Limiter(store, replicas=replicas, clock=clock.monotonic_us)
        self.keys = KeyRing(settings.issuers)
        self.service = Service(rules, self.limiter, self.keys.want)
        self._audit = audit
        self._decisions = Decisions()
        registry.register(self._decisions)
        registry.register(Readings(self))
        if isinstance(store, RedisStore):
            registry.register(CallTimes(store.counts.histogram))
        self._policies: Policies | None = None
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
        policies = () if self._policies is not None else ("policies: not loaded",)
        return (*policies, *(f"issuer {name}: no keys yet" for name in self.keys.missing))

    def _publish(self) -> None:
        """Swap in the facts, once they are complete, or complete enough after a while."""
        if self._policies is None:
            return
        missing = self.keys.missing
        patience = clock.monotonic_s() - self._started_s >= READY_WITHOUT_ALL_KEYS_S
        if missing and self._facts is None and not (patience and len(missing) < len(self.keys.by_name)):
            return
        first = self._facts is None
        self._facts = Facts(policies=self._policies, trusted=self.keys.trusted)
        if first:
            logger.info("ready", extra={"policies": self._policies.generation, "issuers_without_keys": list(missing)})
            self.on_ready()

    async def run(self) -> None:
        """Keep policies and keys fresh until cancelled."""
        await self.limiter.open()
        await self.keys.open(self._publish)
        try:
            await self._reload()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.keys.run())
                tasks.create_task(self._watch())
                tasks.create_task(self._lose_patience())
        finally:
            await self.keys.close()
            await self.limiter.close()

    async def _lose_patience(self) -> None:
        await asyncio.sleep(READY_WITHOUT_ALL_KEYS_S)
        while self._facts is None:
            self._publish()
            await asyncio.sleep(1)

    async def _watch(self) -> None:
        path = self._settings.policies.path
        watched = path.parent if path.is_file() else path
        while True:
            try:
                async for _ in awatch(
                    watched, watch_filter=None, debounce=50, step=10, rust_timeout=RESCAN_MS, yield_on_timeout=True
                ):
                    await self._reload()
            except OSError as failed:
                logger.warning("policies not watched", extra={"error": str(failed)})
            await asyncio.sleep(RESCAN_MS / 1000)
            await self._reload()

    async def _reload(self) -> None:
        try:
            policies = await asyncio.to_thread(self._folder.refresh)
        except OSError as failed:
            logger.warning("policies not read; what they said before holds", extra={"error": str(failed)})
            return
        if policies is not None:
            self._policies = policies
            clients = len({credential.client for credential in policies.by_fingerprint.values()})
            logger.info("policies loaded", extra={"generation": policies.generation, "clients": clients})
            self._publish()

    def numbers(self) -> Iterator[Number]:
        """Return what the metrics page tells besides the decisions (`edge.metrics.Source`)."""
        service = self.service
        yield "gauge", "clientpolicy_ready", "1 once the facts were complete.", {}, float(self._facts is not None)
        yield "gauge", "clientpolicy_policy_errors", "Errors in policy files.", {}, len(self._folder.errors)
        generation = self._policies.generation if self._policies else 0
        yield "gauge", "clientpolicy_policy_generation", "Times that policies changed.", {}, generation
        for name, cache in (("certificate", service.certificates), ("token", service.tokens)):
            yield "counter", "clientpolicy_cache_hits", "Cache hits.", {"cache": name}, cache.hits
            yield "counter", "clientpolicy_cache_misses", "Cache misses.", {"cache": name}, cache.misses
            yield "gauge", "clientpolicy_cache_entries", "Cache entries.", {"cache": name}, len(cache)
        for name, keys in self.keys.by_name.items():
            labels = {"issuer": name}
            yield "counter", "clientpolicy_key_fetches", "Fetches of an issuer's keys.", labels, keys.fetches
            yield "gauge", "clientpolicy_keys", "Usable keys.", labels, len(keys.keys.keys) if keys.keys else 0
            yield "gauge", "clientpolicy_keys_loaded_timestamp_seconds", "Last good fetch.", labels, keys.loaded_at
        yield from self.limiter.numbers()
        yield "counter", "clientpolicy_audit_dropped", "Audit lines lost.", {}, self._audit.dropped
