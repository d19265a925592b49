"""Search parameters of a request, each read once and in one way.

A name that is not of FHIR's grammar has two readings: PHP drops a leading space and takes `x[]` for an array, HAPI
deletes control characters, others decode twice or fold case. Such a request is refused, whatever its scopes.

Source: HL7 FHIR R4 (4.0.1) search.html, sections 3.1.1.4.4 (modifiers) and 3.1.1.4.8 (chains); WHATWG URL Standard,
application/x-www-form-urlencoded.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_plus, unquote_to_bytes

from authz.model import Parameter, Parameters, Reason, Refused

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

NONE: Final = Parameters((), is_complete=True, is_ambiguous=False)


def parse(text: str) -> Parameters:
    """Return the parameters of a query or form, without a `?`; empty pairs count for nothing.

    Raises:
        Refused: REQUEST_MALFORMED, for a name that is not of FHIR's grammar.
    """
    if not text:
        return NONE
    pairs = [pair for pair in text.split("&") if pair]
    ambiguous = len(pairs) > PARAMETERS_MAX
    if _SEPARATOR in text:
        ambiguous = ambiguous or any(_SEPARATOR in pair and not _FORMAT.fullmatch(pair) for pair in pairs)
    return Parameters(tuple([_parameter(pair) for pair in pairs[:PARAMETERS_MAX]]), True, ambiguous)  # noqa: FBT003


def parse_form(form: bytes) -> Parameters:
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
    return parse(form.decode("ascii"))


def parse_condition(header: str) -> Parameters:
    """Return the parameters of If-None-Exist (FHIR R4 http.html, section 3.1.0.8.1).

    Raises:
        Refused: REQUEST_MALFORMED, as for a query.
    """
    parameters = parse(header.strip(" \t").removeprefix("?"))
    return parameters._replace(is_ambiguous=parameters.is_ambiguous or _SECOND_HEADER.search(header) is not None)


def joined(first: Parameters, second: Parameters) -> Parameters:
    """Return the parameters of both: servers read query and form as one."""
    items = first.items + second.items
    ambiguous = first.is_ambiguous or second.is_ambiguous or len(items) > PARAMETERS_MAX
    return Parameters(items, first.is_complete and second.is_complete, ambiguous)


def _parameter(pair: str) -> Parameter:
    name, _, value = pair.partition("=")
    if "%" in name or "+" in name:
        name = unquote_plus(name)
    if "%" in value or "+" in value:
        value = unquote_plus(value)
    if not _NAME.fullmatch(name) or name.lower() == _CHARSET:
        raise _malformed("a parameter's name is not of FHIR's grammar, so servers may read it as another one")
    code = name.partition(":")[0].partition(".")[0]
    return Parameter(name, code, value)


def _malformed(why: str) -> Refused:
    return Refused(Reason.REQUEST_MALFORMED, why)
