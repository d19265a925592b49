"""A cluster in memory for one policy: a ledger, a Secret and a status, each written only by who saw its last version."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from clientpolicy_operator import ledger
from clientpolicy_operator.facts import Document, Entry, Held, Leaf, Observed, Signer, Subject
from clientpolicy_operator.issue import request_digest
from clientpolicy_operator.plan import Action, Dress, Record, Report, Store, plan
from partner import policy_document

from authz.policy import ClientPolicy, parse

START = datetime(2026, 11, 23, 12, tzinfo=UTC)


def subject(generation: int = 1, uid: str = "uid-1", **spec: Any) -> Subject:
    document = policy_document(**spec)
    policy = parse(document)
    assert isinstance(policy, ClientPolicy), policy
    return Subject(uid=uid, generation=generation, namespace="default", name="partner", policy=policy)


def signer(sha256: str = "ca-1", switched: datetime = START) -> Signer:
    return Signer(
        sha256=sha256,
        not_before=START - timedelta(days=1),
        not_after=START + timedelta(days=3650),
        switched=switched,
        spread_s=3600.0,
    )


@dataclass
class World:
    """What outlives an operator."""

    subject: Subject
    now: datetime = START
    signer: Signer | None = field(default_factory=signer)
    status: Document = field(default_factory=dict)
    secret: Held | None = None
    entries: tuple[Entry, ...] = ()
    version: int = 0
    stored: list[str] = field(default_factory=list)  # every certificate that the Secret ever held
    writes: int = 0

    def observe(self) -> Observed:
        return Observed(status=self.status, secret=self.secret, entries=self.entries, signer=self.signer)

    def bump(self) -> str:
        self.version += 1
        self.writes += 1
        return str(self.version)


def operator(world: World) -> Generator[Action | None, None, None]:
    """Run one operator, a step each time it is asked; what it remembers ends with it. Yields None when it has settled."""
    while True:
        seen = world.observe()
        planned = plan(world.subject, seen, world.now)
        if not planned.actions:
            yield None
            continue
        signed: dict[int, tuple[Leaf, str]] = {}
        for action in planned.actions:
            yield action  # it may be stopped for any time, or for good, before each write
            if not act(world, seen, action, signed):
                break


def act(world: World, seen: Observed, action: Action, signed: dict[int, tuple[Leaf, str]]) -> bool:
    """Do one write; return whether it was possible, as an API server tells by resourceVersion."""
    policy = world.subject.policy
    assert policy is not None
    match action:
        case Record():
            number = world.writes
            leaf = Leaf(
                sha256=f"{number:064x}", serial=f"{number:x}", not_before=action.window[0], not_after=action.window[1]
            )
            assert world.signer is not None
            entry = Entry(
                revision=action.revision, sha256=leaf.sha256, serial=leaf.serial, not_before=leaf.not_before,
                not_after=leaf.not_after, ca_sha256=world.signer.sha256, recorded=world.now.replace(microsecond=0),
            )  # fmt: skip
            added = ledger.add(world.entries, entry, world.now)
            if added is None:
                return False
            world.bump()
            world.entries = added
            signed[action.revision] = (leaf, request_digest(policy))
        case Store():
            before = seen.secret.version if isinstance(seen.secret, Held) else ""
            if (world.secret.version if world.secret is not None else "") != before:
                return False
            leaf, request = signed[action.revision]
            world.stored.append(leaf.sha256)
            world.secret = Held(leaf=leaf, request=request, revision=action.revision, version=world.bump())
        case Dress():
            assert world.secret is not None
            world.secret = replace(world.secret, is_dressed=True, version=world.bump())
        case Report():
            if world.status != seen.status:
                return False
            world.bump()
            world.status = action.status
        case _:
            raise AssertionError(action)
    return True


def settle(world: World, steps_max: int = 200) -> None:
    """Let one operator run until it plans nothing any more; time passes where it waits."""
    running = operator(world)
    for _ in range(steps_max):
        if next(running) is not None:
            continue
        again = plan(world.subject, world.observe(), world.now).again
        if again is None or again > world.now + timedelta(minutes=5):
            return
        world.now = again
    raise AssertionError("it does not come to an end")
