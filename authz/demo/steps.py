"""The walk-through, row by row: what a partner may do behind this Envoy, and what nobody may."""

from __future__ import annotations

import asyncio
import http.client
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from authz.demo.ask import HANDSHAKE_FAILS, Answer, Headers, Peer, client_tls, handshake
from authz.demo.ca import Credential
from authz.demo.configuration import FLOODER, OTHER, PARTNER, Application
from authz.demo.failure import DemoFailed
from authz.demo.flood import Flood, flood
from authz.demo.mint import TOKEN_LIFETIME, Mint, Terms
from authz.demo.walk import Got, Refusal, Sections, Step, allowed, refused, saw
from authz.demo.world import PATIENT, World

READ_PATIENT: Final = "patient/Patient.read"
READ_OBSERVATIONS: Final = "patient/Observation.read"
RECORD: Final = f"/fhir/Patient/{PATIENT}"
OBSERVATIONS: Final = f"{RECORD}/Observation"
NEIGHBOUR: Final = "/fhir/Patient/124"
SETTLES_WITHIN_S: Final = 5.0  # a deleted file is noticed in milliseconds; on a folder without events, after seconds
# Each reads as the neighbour's record to some server on the way.
AMBIGUOUS: Final = (
    f"{RECORD}/../124",
    f"{RECORD}/%2e%2e/124",
    f"{RECORD}/.%2E/124",
    f"{RECORD}%2F..%2F124",
    f"{RECORD}%5C..%5C124",
    f"{RECORD}/%252e%252e/124",
    f"{RECORD}/..;/124",
    f"{RECORD}//../124",
)
MISMATCH: Final = Refusal(status=403, reason="patient_mismatch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Good ones, each from the authorization server by its own protocol."""

    patient: str
    observations: str
    other: str
    flooder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A GET through Envoy: by whom, of what, with which token and further headers."""

    target: str = RECORD
    token: str | None = None
    more: Headers = ()
    by: Application = PARTNER

    @property
    def headers(self) -> Headers:
        return (*((("Authorization", f"Bearer {self.token}"),) if self.token is not None else ()), *self.more)


async def fetch_tokens(world: World) -> Tokens:
    """Return the tokens of the walk-through.

    Raises:
        DemoFailed: the authorization server does not give one; with what it said.
    """
    partner, other, flooder = (world.partner(application) for application in (PARTNER, OTHER, FLOODER))
    try:
        return Tokens(
            patient=await asyncio.to_thread(partner.patient_token, READ_PATIENT),
            observations=await asyncio.to_thread(partner.patient_token, READ_OBSERVATIONS),
            other=await asyncio.to_thread(other.patient_token, READ_PATIENT),
            flooder=await asyncio.to_thread(flooder.system_token, "system/Patient.read"),
        )
    except (OSError, http.client.HTTPException, LookupError, ValueError) as failed:
        raise DemoFailed(f"no token from the authorization server: {type(failed).__name__}: {failed}") from failed


class Journey:
    """What the steps share: the world, the tokens, and what the flood came to."""

    def __init__(self, world: World, tokens: Tokens) -> None:
        self._world = world
        self._tokens = tokens
        self._flood = Flood(passed=(), stopped=(), took_s=0)

    def sections(self) -> Sections:
        return {
            "certificate": self._certificates(),
            "token": self._bad_tokens(),
            "scope and patient": self._rights(),
            "path": self._paths(),
            "forged headers": self._forgeries(),
            "quota": self._quota(),
            "outage": self._outages(),
        }

    def _certificates(self) -> tuple[Step, ...]:
        step = partial(Step, asked="TLS handshake", expect=HANDSHAKE_FAILS)
        return (
            step(name="no client certificate", act=partial(self._shake_hands, None)),
            step(name="certificate of another CA", act=partial(self._shake_hands, self._world.stranger)),
            self._passed("certificate, public path", Call(target="/health"), patient=None),
        )

    def _bad_tokens(self) -> tuple[Step, ...]:
        mint, now = self._world.oauth.mint, datetime.now(UTC)
        good = Terms(
            client_id=PARTNER.client_id,
            subject="user",
            audience=self._world.fhir_url,
            scopes=(READ_PATIENT,),
            patient=PATIENT,
            thumbprint=self._world.credentials[PARTNER.client_id].thumbprint,
        )
        elsewhere = replace(good, audience="https://elsewhere.example/fhir")
        bound = replace(good, thumbprint=self._world.credentials[OTHER.client_id].thumbprint)
        bad = (
            ("expired token", "token_expired", mint.token(good, now - TOKEN_LIFETIME - timedelta(hours=1))),
            ("wrongly signed token", "token_signature", Mint(mint.issuer).token(good, now)),
            ("token for another audience", "token_audience", mint.token(elsewhere, now)),
            ("another client's token", "token_client", self._tokens.other),
            ("bound to another certificate", "token_binding", mint.token(bound, now)),
        )
        invalid = partial(Refusal, status=401, error="invalid_token")
        return (
            self._refused("no token", Call(), Refusal(status=401, reason="token_missing")),
            *(self._refused(name, Call(token=token), invalid(reason=reason)) for name, reason, token in bad),
        )

    def _rights(self) -> tuple[Step, ...]:
        token, observations = self._tokens.patient, self._tokens.observations
        lacking = Refusal(status=403, reason="scope_missing", error="insufficient_scope", scope=READ_OBSERVATIONS)
        return (
            self._passed(READ_PATIENT, Call(token=token)),
            self._refused(READ_PATIENT, Call(target=OBSERVATIONS, token=token), lacking),
            self._passed(READ_OBSERVATIONS, Call(target=OBSERVATIONS, token=observations)),
            self._refused("another patient's record", Call(target=NEIGHBOUR, token=token), MISMATCH),
        )

    def _paths(self) -> tuple[Step, ...]:
        ambiguous = Refusal(status=400, reason="path_ambiguous")
        calls = (Call(target=target, token=self._tokens.patient) for target in AMBIGUOUS)
        return tuple(self._refused("path with two readings", call, ambiguous) for call in calls)

    def _forgeries(self) -> tuple[Step, ...]:
        other = self._world.credentials[OTHER.client_id].fingerprint
        forged = (
            ("x-forwarded-client-cert", f'Hash={other};Subject="CN={OTHER.client_id}";URI={OTHER.uri}'),
            ("x-client-id", OTHER.client_id),
            ("x_client_id", OTHER.client_id),
            ("x-patient-id", "124"),
        )
        reach = Call(target=NEIGHBOUR, token=self._tokens.patient, more=(("x-patient-id", "124"),))
        step = partial(Step, asked=RECORD, expect=200)
        return (
            *(step(name=f"forged {header[0]}", act=partial(self._stay_unmoved, header)) for header in forged),
            self._refused("forged x-patient-id", reach, MISMATCH),
        )

    def _quota(self) -> tuple[Step, ...]:
        step = partial(Step, asked=RECORD)
        return (
            step(name="flood, 10/s burst 20", expect="21 to 21 + ⌊10 t⌋ pass", act=self._pour),
            step(name="rest of the flood", expect=429, act=self._stop),
            step(name="after that wait", expect=200, act=self._wait),
        )

    def _outages(self) -> tuple[Step, ...]:
        return (
            Step(name="policy deleted", asked=RECORD, expect=403, act=self._delete_policy),
            Step(name="authz stopped", asked="/health", expect=503, act=self._stop_authz),
        )

    def _refused(self, name: str, call: Call, expected: Refusal) -> Step:
        act = partial(self._be_refused, call, expected)
        return Step(name=name, asked=call.target, expect=expected.status, act=act)

    def _passed(self, name: str, call: Call, patient: str | None = PATIENT) -> Step:
        async def act() -> Got:
            return allowed(await self._ask(call), call.by.client_id, patient)

        return Step(name=name, asked=call.target, expect=200, act=act)

    async def _ask(self, call: Call) -> Answer:
        return await asyncio.to_thread(self._world.caller(call.by).ask, "GET", call.target, call.headers)

    async def _be_refused(self, call: Call, expected: Refusal) -> Got:
        served = self._world.fhir.served
        answer = await self._ask(call)
        return refused(answer, expected, reached_upstream=self._world.fhir.served != served)

    async def _shake_hands(self, credential: Credential | None) -> Got:
        tls = client_tls(self._world.authority.file, credential)
        peer = Peer(host="localhost", port=self._world.ports.envoy, tls=tls)
        came = await asyncio.to_thread(handshake, peer)
        return Got(value=came, ok=came == HANDSHAKE_FAILS)

    async def _stay_unmoved(self, forged: tuple[str, str]) -> Got:
        """Ask with and without a forged header: the FHIR API must see the same both times."""
        honest = saw(await self._ask(Call(token=self._tokens.patient)))
        answer = await self._ask(Call(token=self._tokens.patient, more=(forged,)))
        got = allowed(answer, PARTNER.client_id, PATIENT)
        if saw(answer) == honest:
            return replace(got, note=got.note or "changes nothing")
        return replace(got, ok=False, note=f"the FHIR API saw {saw(answer)}, not {honest}")

    async def _pour(self) -> Got:
        call = Call(token=self._tokens.flooder, by=FLOODER)
        came = self._flood = await flood(self._world.caller(FLOODER), call.target, call.headers)
        note = f"of {len(came.passed) + len(came.stopped)} in t = {came.took_s:.2f} s"
        return Got(value=f"{len(came.passed)} pass", ok=came.is_within_quota, note=note)

    async def _stop(self) -> Got:
        expected = Refusal(status=429, reason="quota_exceeded")
        stopped = self._flood.stopped
        faults = {fault for answer in stopped for fault in expected.faults(answer)}
        faults |= {"no Retry-After" for answer in stopped if answer.retry_after_s < 1}
        if not stopped:
            return Got(value="none", ok=False)
        note = "; ".join(sorted(faults)) or f"Retry-After: {stopped[-1].retry_after_s}"
        return Got(value=stopped[-1].status, ok=not faults, note=note)

    async def _wait(self) -> Got:
        await asyncio.sleep(max((answer.retry_after_s for answer in self._flood.stopped), default=0))
        return allowed(await self._ask(Call(token=self._tokens.flooder, by=FLOODER)), FLOODER.client_id, None)

    async def _delete_policy(self) -> Got:
        """Delete the policy and ask until refused: the first answer that is not the right itself is the refusal."""
        call, expected = Call(token=self._tokens.patient), Refusal(status=403, reason="certificate_unknown")
        self._world.policy_file(PARTNER).unlink()
        started_s = time.monotonic()
        answer = await self._ask(call)
        while answer.status == http.client.OK and time.monotonic() - started_s < SETTLES_WITHIN_S:
            answer = await self._ask(call)
        took_ms = (time.monotonic() - started_s) * 1000
        got = await self._be_refused(call, expected)
        ok = got.ok and not expected.faults(answer)
        return replace(got, ok=ok, note=f"{got.note}, {took_ms:.0f} ms")

    async def _stop_authz(self) -> Got:
        await self._world.authz.stop()
        served = self._world.fhir.served
        answer = await self._ask(Call(target="/health"))
        is_refused = answer.status == http.client.SERVICE_UNAVAILABLE and self._world.fhir.served == served
        return Got(value=answer.status, ok=is_refused, note="refused by Envoy" if is_refused else "let through")
