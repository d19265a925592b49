"""All ClientPolicies of a cluster, and who of them holds what: kept up to date at the price of what a change touches.

What this tells after any sequence of changes is what it would tell had it been built anew (a property of its tests).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import replace
from typing import Final, Generic, NamedTuple, TypeVar

from authz.edge.kubernetes.objects import Held
from authz.model import Client, Credential, Policies, Standing
from authz.policy import Source
from authz.policy.claims import Claim, Claimant, conflicts

Key = TypeVar("Key", bound=Hashable)
Lost = tuple[str, Claim]  # to whom, and what both claim
_RANK: Final = {Standing.ACTIVE: 0, Standing.CONFLICT: 1, Standing.INVALID: 2}


class Fortune(NamedTuple):
    """A policy that began to lose to another one, or ceased to (`lost` is None)."""

    name: str
    lost: Lost | None


class _Filed(Generic[Key]):
    """The names filed under each key: mostly one, so that a set is made only where there are more."""

    def __init__(self) -> None:
        self._names: dict[Key, str | set[str]] = {}

    def add(self, key: Key, name: str) -> None:
        filed = self._names.setdefault(key, name)
        if isinstance(filed, set):
            filed.add(name)
        elif filed != name:
            self._names[key] = {filed, name}

    def discard(self, key: Key, name: str) -> None:
        filed = self._names.get(key)
        if filed == name:
            del self._names[key]
        elif isinstance(filed, set):
            filed.discard(name)
            if len(filed) == 1:
                self._names[key] = filed.pop()

    def of(self, key: Key) -> Collection[str]:
        filed = self._names.get(key, ())
        return (filed,) if isinstance(filed, str) else filed


class Census:
    """Objects go in and out; `policies` is the index that decisions look clients up in."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._claimed: _Filed[Claim] = _Filed()
        self._bearers: _Filed[str] = _Filed()  # by fingerprint
        self._bare: _Filed[str] = _Filed()  # by client id, of source None
        self._lost: dict[str, Lost] = {}
        self._disputed: set[Claim] = set()  # claims whose holders are to be judged anew, and names likewise
        self._unsettled: set[str] = set()
        self._stale_prints: set[str] = set()
        self._stale_ids: set[str] = set()
        self._by_fingerprint: dict[str, Credential] = {}
        self._by_token: dict[str, Client] = {}
        self._invalid = 0
        self.errors = 0  # in the newest versions of all

    def __len__(self) -> int:
        return len(self._held)

    def get(self, name: str) -> Held | None:
        return self._held.get(name)

    def put(self, held: Held) -> None:
        """Know an object as it is now."""
        before = self._held.get(held.meta.name)
        self._held[held.meta.name] = held
        self._change(held.meta.name, before, held)

    def drop(self, name: str) -> None:
        before = self._held.pop(name, None)
        if before is not None:
            self._change(name, before, None)
            self._lost.pop(name, None)

    def missing(self, namespace: str | None, present: Collection[str]) -> list[str]:
        """Return who of a namespace (None: of all) is known and not among those present."""
        prefix = f"{namespace}/" if namespace is not None else ""
        return [name for name in self._held if name not in present and name.startswith(prefix)]

    @property
    def standings(self) -> dict[Standing, int]:
        conflicting = len(self._lost)
        return {
            Standing.ACTIVE: len(self._held) - conflicting - self._invalid,
            Standing.CONFLICT: conflicting,
            Standing.INVALID: self._invalid,
        }

    def policies(self, generation: int) -> tuple[Policies, list[Fortune]]:
        """Return the index as of now, and whose fortune has changed since the last one."""
        fortunes = self._settle() if self._disputed or self._unsettled else []
        for sha256 in self._stale_prints:
            self._resolve_print(sha256)
        for client_id in self._stale_ids:
            self._resolve_id(client_id)
        self._stale_prints.clear()
        self._stale_ids.clear()
        by_fingerprint, by_token = self._by_fingerprint.copy(), self._by_token.copy()
        return Policies(by_fingerprint=by_fingerprint, by_token=by_token, generation=generation), fortunes

    def _settle(self) -> list[Fortune]:
        """Judge conflicts anew where claims have moved."""
        names = self._reached()
        lost = conflicts(_claimant(self._held[name]) for name in names)
        changed = [Fortune(name, lost.get(name)) for name in sorted(names) if self._lost.get(name) != lost.get(name)]
        for name, now in changed:
            if now is None:
                del self._lost[name]
            else:
                self._lost[name] = now
            self._touch(self._held[name])
        return changed

    def _change(self, name: str, before: Held | None, after: Held | None) -> None:
        old, new = _competing(before), _competing(after)
        for claim in old - new:
            self._claimed.discard(claim, name)
        for claim in new - old:
            self._claimed.add(claim, name)
        if _contest(before) != _contest(after):
            self._disputed |= {claim for claim in old | new if self._is_shared(claim, name)}
            if after is not None and name in self._lost:
                self._unsettled.add(name)
        self._refile(name, before, after)
        self.errors += (after.errors if after else 0) - (before.errors if before else 0)
        self._invalid += _is_invalid(after) - _is_invalid(before)

    def _is_shared(self, claim: Claim, name: str) -> bool:
        holders = self._claimed.of(claim)
        return len(holders) > 1 or (len(holders) == 1 and name not in holders)

    def _refile(self, name: str, before: Held | None, after: Held | None) -> None:
        """Keep the two indexes; where a single policy is in question that is done at once, else when all is settled."""
        for held, file in ((before, False), (after, True)):
            if held is None:
                continue
            for one in held.prints:
                (self._bearers.add if file else self._bearers.discard)(one.sha256, name)
            if held.client.source is Source.NONE:
                (self._bare.add if file else self._bare.discard)(held.client.id, name)
        for held in (before, after):
            if held is not None:
                self._touch(held)

    def _touch(self, held: Held) -> None:
        for one in held.prints:
            if len(self._bearers.of(one.sha256)) > 1:
                self._stale_prints.add(one.sha256)
            else:
                self._resolve_print(one.sha256)
        if held.client.source is Source.NONE:
            self._stale_ids.add(held.client.id)

    def _resolve_print(self, sha256: str) -> None:
        names = self._bearers.of(sha256)
        if not names:
            self._by_fingerprint.pop(sha256, None)
            return
        name = min(names, key=self._rank)
        one = next(one for one in self._held[name].prints if one.sha256 == sha256)
        self._by_fingerprint[sha256] = Credential(self._client(name), one.not_before_us, one.not_after_us)

    def _resolve_id(self, client_id: str) -> None:
        names = self._bare.of(client_id)
        if names:
            self._by_token[client_id] = self._client(min(names, key=self._rank))
        else:
            self._by_token.pop(client_id, None)

    def _rank(self, name: str) -> tuple[int, str, str]:
        """Sort those who may act first, then by age: a loser or an invalid one takes nothing from them."""
        return _RANK[self._client(name).standing], self._held[name].meta.created, name

    def _client(self, name: str) -> Client:
        client = self._held[name].client
        return replace(client, standing=Standing.CONFLICT) if name in self._lost else client

    def _reached(self) -> set[str]:
        """Return all that a judgement may concern: those with a claim in dispute, and whoever shares one with them."""
        ahead: list[Claim] = list(self._disputed)
        names = {name for name in self._unsettled if name in self._held}
        ahead.extend(claim for name in names for claim in _competing(self._held[name]))
        self._disputed, self._unsettled = set(), set()
        seen = set(ahead)
        while ahead:
            for name in self._claimed.of(ahead.pop()):
                if name not in names:
                    names.add(name)
                    further = _competing(self._held[name]) - seen
                    seen |= further
                    ahead.extend(further)
        return names


def _claimant(held: Held) -> Claimant:
    return Claimant(name=held.meta.name, created=held.meta.created, claims=held.claims, issued=held.made)


def _competing(held: Held | None) -> frozenset[Claim]:
    if held is None:
        return frozenset()
    return held.claims | {("fingerprint", sha256) for sha256 in held.made} if held.made else held.claims


def _contest(held: Held | None) -> object:
    return held and (held.meta.created, held.claims, held.made)


def _is_invalid(held: Held | None) -> int:
    return int(held is not None and held.client.standing is Standing.INVALID)
