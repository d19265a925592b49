"""SMART scopes against a FHIR interaction: is each permission granted, and does the request stay with the patient?

Source: SMART App Launch 2.2, "Scopes and Launch Context"; RFC 6750 section 3 (`scope` of a challenge).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from authz.core import compartment
from authz.core.compartment import Finding
from authz.core.interaction import ANY, Interaction, Kind, Need, reached
from authz.model import Claims, Compartment, Effect, Fhir, Parameters, Reason, Refused
from authz.policy.fhir_r4 import SEARCH_PARAMETERS
from authz.policy.smart import Context, Scope, parse_scope

_LETTERS_OF_V1: Final = {"r": "read", "s": "read", "c": "write", "u": "write", "d": "write"}


class Case(NamedTuple):
    """What is asked, with which effective scopes, by whom; without claims by a certificate alone."""

    asked: Interaction
    parameters: Parameters
    scopes: tuple[Scope, ...]
    claims: Claims | None
    fhir: Fhir

    @property
    def patient(self) -> str | None:
        return self.claims.patient if self.claims is not None else None


def askable(wanted: Iterable[Scope | str], claims: Claims | None) -> tuple[str, ...]:
    """Return the texts of scopes that a caller can do something about: it lacks them, and may be given them.

    What the token has and the policy lacks is not asked for again; people's apps are given no `system/` scopes.
    """
    held, texts = _of_token(claims), claims.scopes if claims is not None else ()
    return tuple(
        one.text if isinstance(one, Scope) else one
        for one in wanted
        if (one not in texts if isinstance(one, str) else not any(scope.covers(one) for scope in held))
        and (isinstance(one, str) or one.context is not Context.SYSTEM or _may_hold_system_scopes(claims))
    )


def _of_token(claims: Claims | None) -> list[Scope]:
    return [scope for scope in map(parse_scope, claims.scopes if claims is not None else ()) if scope is not None]


def _may_hold_system_scopes(claims: Claims | None) -> bool:
    """Return whether an authorization server may give `system/` scopes: to machines, not to people's apps."""
    if claims is None or any(text.startswith("system/") for text in claims.scopes):
        return True
    return claims.patient is None and not any(text.startswith(("patient/", "user/")) for text in claims.scopes)


def authorize(case: Case) -> tuple[str, str | None]:
    """Return the scope by which a request passes, and the compartment that the FHIR server must enforce, if any.

    Raises:
        Refused: SCOPE_MISSING, PATIENT_UNKNOWN, PATIENT_MISMATCH, COMPARTMENT_UNDECIDABLE.
    """
    asked = case.asked
    covering = [_covering(need, case) for need in asked.needs]
    if not all(covering):
        raise _scope_missing([need for need, found in zip(asked.needs, covering, strict=True) if not found], case)
    if asked.deletes_further and not any(_deletes_anything(scope) for scope in case.scopes):
        raise _scope_missing([Need(ANY, "d")], case, Context.SYSTEM)
    rule = covering[0][0].text
    if all(any(scope.context is not Context.PATIENT for scope in found) for found in covering):
        unreached = _unreached(case, [scope for scope in case.scopes if scope.context is not Context.PATIENT])
        if not unreached:
            return rule, None
        if not any(scope.context is Context.PATIENT for found in covering for scope in found):
            raise _scope_missing(unreached, case)
    return rule, _within_patient(case)


def _deletes_anything(scope: Scope) -> bool:
    return scope.context is Context.SYSTEM and not scope.filters and _covers(scope, Need(ANY, "d"))


def _unreached(case: Case, scopes: Iterable[Scope]) -> list[Need]:
    """Return what includes, chains and control parameters reach beyond these scopes."""
    whole = [scope for scope in scopes if not scope.filters]
    needs = reached(case.asked, case.parameters)
    return [need for need in needs if not any(_covers(scope, need) for scope in whole)]


def _covering(need: Need, case: Case) -> list[Scope]:
    return [
        scope
        for scope in case.scopes
        if _covers(scope, need) and (not scope.filters or _carries(scope.filters, need, case))
    ]


def _carries(filters: frozenset[tuple[str, str]], need: Need, case: Case) -> bool:
    """Return whether a search carries all the parameters that a scope is limited to, and these with no other value.

    Of two values one server takes the last and another both, and some ignore case: so every occurrence must be granted.
    """
    parameters = case.parameters
    if need.letter != "s" or case.asked.kind not in (Kind.SEARCH, Kind.COMPARTMENT_SEARCH):
        return False
    if parameters.is_ambiguous or not parameters.is_complete or not _are_known(filters, need.resource_type, case.fhir):
        return False
    codes = {name.lower() for name, _ in filters}
    occurrences = [item for item in parameters.items if item.code.lower() in codes]
    # A space may have been a plus: two readings, so it carries nothing.
    if any(" " in item.value for item in occurrences) or any(item.effect is Effect.CURSOR for item in parameters.items):
        return False  # a page ignores what stands beside its cursor
    asked = {(item.name, item.value) for item in occurrences}
    return asked == filters and filters <= {(item.name, item.value) for item in occurrences if item.is_certain}


def _are_known(filters: frozenset[tuple[str, str]], resource_type: str, fhir: Fhir) -> bool:
    """Return whether a server knows these parameters: what it does not know it ignores, and filters nothing."""
    known = SEARCH_PARAMETERS.get(resource_type, frozenset()) | fhir.pins.get(resource_type, {}).keys()
    return all(name in known or fhir.parameters.get(name.lower()) is Effect.NARROWS for name, _ in filters)


def _covers(scope: Scope, need: Need) -> bool:
    return scope.resource_type in (ANY, need.resource_type) and need.letter in scope.letters


def _within_patient(case: Case) -> str | None:
    """Return None for a request that stays within the token's patient, or the compartment for the server to enforce."""
    patient = case.patient
    if patient is None:
        raise Refused(Reason.PATIENT_UNKNOWN, "only patient/ scopes, and the token names no patient")
    found = compartment.locate(case.asked, case.parameters, patient, case.fhir)
    if found is Finding.OUTSIDE:
        raise Refused(Reason.PATIENT_MISMATCH, "the request is about another patient than the token's, or about none")
    if found is Finding.WITHIN:
        return None
    if case.fhir.compartment is not Compartment.DELEGATE or case.asked.kind is Kind.CONDITIONAL_CREATE:
        # A conditional create answers with whatever its search finds, also behind HAPI's own compartment rules.
        raise Refused(Reason.COMPARTMENT_UNDECIDABLE, "nothing proves that the request stays within the patient")
    unreached = [need for need in _unreached(case, case.scopes) if need.resource_type != ANY]
    if unreached:  # the compartment is the server's to enforce, but that an included type has no scope is known here
        raise _scope_missing(unreached, case)
    return f"Patient/{patient}"


def _scope_missing(missing: list[Need], case: Case, context: Context | None = None) -> Refused:
    """Name the scopes that would have done, in the version (v1 or v2) that the token speaks.

    What the token has and the policy lacks is not asked for again: the app can do nothing about it.
    """
    context = context if context is not None else _context(case)
    texts = case.claims.scopes if case.claims is not None else ()
    speaks_v1 = any(text.endswith((".read", ".write", ".*")) for text in texts)
    token = [scope for scope in _of_token(case.claims) if not scope.filters]
    needed: dict[str, None] = {}
    withheld: dict[str, None] = {}
    for need in missing:
        has = any(scope.context is context and _covers(scope, need) for scope in token)
        letters = _LETTERS_OF_V1[need.letter] if speaks_v1 else need.letter
        (withheld if has else needed)[f"{context.value}/{need.resource_type}.{letters}"] = None
    told = f"needs {' '.join((*needed, *withheld))}"
    if withheld:
        told += f"; the token has {' '.join(withheld)}, but the policy does not grant it"
    can_be_had = context is not Context.SYSTEM or _may_hold_system_scopes(case.claims)
    return Refused(Reason.SCOPE_MISSING, told, needed=tuple(needed) if can_be_had else ())


def _context(case: Case) -> Context:
    """Return the context in which a scope would have done: `patient/` where that could do, else one that is held.

    What the token holds counts besides what is left of it by the policy; whoever has no scope of a kind for machines
    is never told to ask for one.
    """
    held = [scope.context for scope in case.scopes] or [scope.context for scope in _of_token(case.claims)]
    if not _may_be_within(case):
        held = [context for context in held if context is not Context.PATIENT]
        return held[0] if held else (Context.SYSTEM if _may_hold_system_scopes(case.claims) else Context.USER)
    return held[0] if held else Context.PATIENT


def _may_be_within(case: Case) -> bool:
    """Return whether a `patient/` scope could do, here or at a FHIR server that enforces the compartment."""
    if case.patient is None or case.asked.kind is Kind.CONDITIONAL_CREATE:
        return False
    found = compartment.locate(case.asked, case.parameters, case.patient, case.fhir)
    return found is Finding.WITHIN or (found is Finding.UNDECIDABLE and case.fhir.compartment is Compartment.DELEGATE)
