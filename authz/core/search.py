"""Search parameters of a request, each read once and in one way.

A name that is not of FHIR's grammar has two readings: PHP drops a leading space and takes `x[]` for an array, HAPI
deletes control characters, others decode twice or fold case. Such a request is refused, whatever its scopes.

Source: HL7 FHIR R4 (4.0.1) search.html, sections 3.1.1.4.4 (modifiers) and 3.1.1.4.8 (chains); WHATWG URL Standard,
application/x-www-form-urlencoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_plus, unquote_to_bytes

from authz.core.control_parameters import effect_of
from authz.model import Effect, Parameter, Parameters, Reason, Refused, SearchByPost

PARAMETERS_MAX: Final = 256
# letters, digits, `_` and `-`; then modifiers after `:` and chains after `.`
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+(?:[:.][A-Za-z0-9_-]+)*")
# Some servers decode the whole form by what this field says (WHATWG HTML, form submission).
_CHARSET: Final = "_charset_"
# A `;` once separated parameters (HTML 4.01 appendix B.2.2), and some servers still split there.
_SEPARATOR: Final = ";"
# The one place where FHIR itself writes it: a media type with its version.
_FORMAT: Final = re.compile(r"_format=[A-Za-z0-9.+/%-]+;\s*fhirVersion=[0-9.]+")
# Envoy joins repeated headers with a comma, and a server may read only the last of them.
_SECOND_HEADER: Final = re.compile(r",[^&=]*=")
_FORM: Final = re.compile(rb"[!-~]*")
_FORM_ENCODING_AT_FAULT: Final = re.compile(rb"%(?:(?![0-9A-Fa-f]{2})|[01]|7[Ff])")

NAMES_CACHED_MAX: Final = 4_096
NAME_CACHED_MAX_CHARACTERS: Final = 64
_SORTS_BY_CHAIN: Final = re.compile(r"[.:]")  # `subject.name`, and HAPI's `subject:Patient.name`

NOTHING_DECLARED: Final[Mapping[str, Effect]] = {}
NONE: Final = Parameters((), is_complete=True, is_ambiguous=False)
UNSEEN: Final = NONE._replace(is_complete=False)  # of a form that nobody read


def parse(text: str, declared: Mapping[str, Effect] = NOTHING_DECLARED) -> Parameters:
    """Return the parameters of a query or form, without a `?`; empty pairs count for nothing.

    `declared` says what the server's own parameters do, by names in lower case.

    Raises:
        Refused: REQUEST_MALFORMED, for a name that is not of FHIR's grammar.
    """
    if not text:
        return NONE
    pairs = [pair for pair in text.split("&") if pair]
    ambiguous = len(pairs) > PARAMETERS_MAX
    if _SEPARATOR in text:
        ambiguous = ambiguous or any(_SEPARATOR in pair and not _FORMAT.fullmatch(pair) for pair in pairs)
    read = _decoded if "%" in text or "+" in text else _plain
    return Parameters(tuple([read(pair, declared) for pair in pairs[:PARAMETERS_MAX]]), True, ambiguous)  # noqa: FBT003


def parse_form(form: bytes, declared: Mapping[str, Effect] = NOTHING_DECLARED) -> Parameters:
    """Return the parameters of a whole form body.

    Raises:
        Refused: REQUEST_MALFORMED, for what a query may not hold either: a control byte, encoded or not, bad
            percent-encoding, bytes that are not UTF-8, a name that is not of FHIR's grammar.
    """
    if not _FORM.fullmatch(form) or _FORM_ENCODING_AT_FAULT.search(form):
        raise _malformed("the form holds bad percent-encoding, or a byte that is not visible ASCII, encoded or not")
    try:
        unquote_to_bytes(form).decode()
    except UnicodeDecodeError:
        raise _malformed("the form holds percent-encoded bytes that are not UTF-8") from None
    return parse(form.decode("ascii"), declared)


def parse_condition(header: str, resource_type: str, declared: Mapping[str, Effect] = NOTHING_DECLARED) -> Parameters:
    """Return the parameters of If-None-Exist (FHIR R4 http.html, section 3.1.0.8.1).

    They may follow a `?`, `[type]?` or `[base]/[type]?`, as HAPI's client writes them.

    Raises:
        Refused: REQUEST_MALFORMED, as for a query, and for the parameters of another type.
    """
    head, mark, query = header.strip(" \t").partition("?")
    if mark and head.rpartition("/")[2] not in ("", resource_type):
        raise _malformed("If-None-Exist searches another type than the one that is created")
    parameters = parse(query if mark else head, declared)
    return parameters._replace(is_ambiguous=parameters.is_ambiguous or _SECOND_HEADER.search(header) is not None)


def joined(first: Parameters, second: Parameters) -> Parameters:
    """Return the parameters of both."""
    items = first.items + second.items
    ambiguous = first.is_ambiguous or second.is_ambiguous or len(items) > PARAMETERS_MAX
    return Parameters(items, first.is_complete and second.is_complete, ambiguous)


def joined_by_post(query: Parameters, form: Parameters, by: SearchByPost) -> Parameters:
    """Return the parameters of a search by POST: what can be relied on is what stands where the server looks.

    HAPI reads query and form as one, Medplum the form alone, Google the query alone.
    """
    if by is SearchByPost.BOTH:
        return joined(query, form)
    certain, other = (form, query) if by is SearchByPost.FORM else (query, form)
    there = {(item.name, item.value) for item in certain.items}
    items = tuple([item._replace(is_certain=(item.name, item.value) in there) for item in other.items])
    return joined(certain, other._replace(items=items))


def parameter(name: str, value: str, declared: Mapping[str, Effect]) -> Parameter:
    """Return one parameter, decoded, with what it does.

    Raises:
        Refused: REQUEST_MALFORMED.
    """
    code, effect, is_sort = _named(name) if len(name) <= NAME_CACHED_MAX_CHARACTERS else _read_name(name)
    if declared and (said := declared.get(code.lower())) is not None:
        effect = Effect.CHAINS if said is Effect.NARROWS and "." in name else said
    if is_sort and effect is Effect.NARROWS and _SORTS_BY_CHAIN.search(value):
        effect = Effect.CHAINS
    return Parameter(name, code, value, effect)


def _decoded(pair: str, declared: Mapping[str, Effect]) -> Parameter:
    name, _, value = pair.partition("=")
    return parameter(unquote_plus(name), unquote_plus(value), declared)


def _plain(pair: str, declared: Mapping[str, Effect]) -> Parameter:
    name, _, value = pair.partition("=")
    return parameter(name, value, declared)


def _read_name(name: str) -> tuple[str, Effect, bool]:
    """Return a name's code, what FHIR or a known server does with it, and whether it sorts."""
    if not _NAME.fullmatch(name) or name.lower() == _CHARSET:
        raise _malformed("a parameter's name is not of FHIR's grammar, so servers may read it as another one")
    code = name.partition(":")[0].partition(".")[0]
    effect = effect_of(code, NOTHING_DECLARED)
    if effect is Effect.NARROWS and "." in name:
        effect = Effect.CHAINS
    return code, effect, code.lower() == "_sort"


# All servers' names together are some hundreds; 4,096 of the longest take 1 MB.
_named: Final = lru_cache(maxsize=NAMES_CACHED_MAX)(_read_name)


def _malformed(why: str) -> Refused:
    return Refused(Reason.REQUEST_MALFORMED, why)
