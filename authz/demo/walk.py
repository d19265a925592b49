"""Steps of the walk-through as values, and what it takes to judge an answer."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from authz.demo.ask import Answer
from authz.demo.failure import DemoFailed
from authz.demo.fhir import SAW


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """What came: a status or a few words, whether it is as expected, and what a person may want to know besides."""

    value: int | str
    ok: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One row: its name, what is asked, what is expected, and the function that asks."""

    name: str
    asked: str
    expect: int | str
    act: Callable[[], Awaitable[Got]]


Sections = Mapping[str, tuple[Step, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal in full: its status, its reason, and its challenge (RFC 6750 section 3)."""

    status: int
    reason: str
    error: str | None = None  # a 401 without an error is the bare challenge
    scope: str | None = None

    def faults(self, answer: Answer) -> list[str]:
        """Return in what an answer differs from this refusal."""
        challenge = answer.headers.get("www-authenticate", "")
        is_challenged = self.status == http.client.UNAUTHORIZED or self.error is not None
        told = (
            (answer.status == self.status, f"status {answer.status}"),
            (answer.reason == self.reason, f"reason {answer.reason}, not {self.reason}"),
            (challenge.startswith("Bearer ") is is_challenged, f"challenge `{challenge}`"),
            (("error=" in challenge) is (self.error is not None), f"challenge `{challenge}`"),
            (self.error is None or f'error="{self.error}"' in challenge, f"challenge without {self.error}"),
            (self.scope is None or f'scope="{self.scope}"' in challenge, f"challenge without {self.scope}"),
        )
        return [fault for is_so, fault in told if not is_so]


def refused(answer: Answer, expected: Refusal, *, reached_upstream: bool) -> Got:
    faults = expected.faults(answer) + (["the FHIR API was asked all the same"] if reached_upstream else [])
    told = expected.reason if expected.error is None else f"{expected.reason}, {expected.error}"
    return Got(value=answer.status, ok=not faults, note="; ".join(faults) or told)


def allowed(answer: Answer, client_id: str, patient: str | None) -> Got:
    """Judge an answer that should have come from the FHIR API, told of this client and this patient by nobody else."""
    seen = saw(answer)
    who = (seen.get("x-client-id"), seen.get("x-patient-id"))
    ok = answer.status == http.client.OK and who == (client_id, patient)
    return Got(value=answer.status, ok=ok, note="" if ok else f"{answer.reason}; the FHIR API saw {seen}")


def saw(answer: Answer) -> dict[str, str]:
    """Return the identity headers that the FHIR API received; none if it was not asked."""
    seen: dict[str, str] = json.loads(answer.headers.get(SAW, "{}"))
    return seen


async def walk(sections: Sections) -> AsyncIterator[tuple[str, Step, Got]]:
    """Take the steps in order; one that cannot even be taken has failed, and the others are taken all the same."""
    for section, steps in sections.items():
        for step in steps:
            try:
                got = await step.act()
            except (OSError, http.client.HTTPException, ValueError, DemoFailed) as failed:
                got = Got(value=type(failed).__name__, ok=False, note=str(failed))
            yield section, step, got
