"""Mutants of the inside of a regular expression, which mutation tools leave alone: each is off by one decision."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"(?P<escape>\\(?:x[0-9A-Fa-f]{2}|.))"
    r"|(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])"
    r"|(?P<open>\((?:\?(?:P<\w+>|[:=!]|<[=!]))?)"
    r"|(?P<close>\))"
    r"|(?P<count>(?:[*+?]|\{\d*,?\d*\})\??)"
    r"|(?P<or>\|)"
    r"|(?P<anchor>[\^$])"
    r"|(?P<literal>[A-Za-z]+|.)",
    re.DOTALL,
)
_MEMBER = re.compile(r"(\\x[0-9A-Fa-f]{2}|\\.|[^\\])(?:-(\\x[0-9A-Fa-f]{2}|\\.|[^\\]))?", re.DOTALL)
_CHARACTERS = "".join(map(chr, range(0x250)))
_CLASSES = dict(zip(r"dDsSwWbB", r"DdSsWwBb", strict=True))
_OPPOSITE = {"(?=": "(?!", "(?!": "(?=", "(?<=": "(?<!", "(?<!": "(?<="}


def mutants(pattern: str) -> list[str]:
    """Return patterns that differ from this one in a quantifier, a member of a set, an anchor, an alternative and so on."""
    found = dict.fromkeys([*_by_token(pattern), *_without_alternative(pattern)])
    return [mutant for mutant in found if mutant != pattern and _compiles(mutant)]


def _by_token(pattern: str) -> Iterator[str]:
    for token in _TOKEN.finditer(pattern):
        for replacement in _replacements(str(token.lastgroup), token[0]):
            yield pattern[: token.start()] + replacement + pattern[token.end() :]


def _replacements(kind: str, text: str) -> Iterator[str]:
    match kind:
        case "count":
            yield from _counts(text)
        case "set":
            yield from _sets(text)
        case "open" if text in _OPPOSITE:
            yield _OPPOSITE[text]
        case "anchor" | "literal":
            yield text[:-1]
        case "escape":
            yield ""
            if text[1] in _CLASSES:
                yield "\\" + _CLASSES[text[1]]
            elif not text[1].isalnum():
                yield text[1]
        case _:
            return


def _counts(text: str) -> Iterator[str]:
    yield ""
    if text[0] in "*+?":
        yield {"*": "+", "+": "*", "?": "*"}[text[0]] + text[1:]
        return
    for number in re.finditer(r"\d+", text):
        for other in (int(number[0]) - 1, int(number[0]) + 1):
            if other >= 0:
                yield text[: number.start()] + str(other) + text[number.end() :]


def _sets(text: str) -> Iterator[str]:
    yield from (changed for changed in _changed_sets(text) if _members(changed) != _members(text))


def _members(text: str) -> str:
    """Return the characters that a set takes, as far as sets of ours go; all of it where Python cannot read it."""
    try:
        return "".join(re.findall(text, _CHARACTERS))
    except re.error:
        return text


def _changed_sets(text: str) -> Iterator[str]:
    negated = text.startswith("[^")
    yield ("[" if negated else "[^") + text[1 + negated :]
    body, start = text[1 + negated : -1], 1 + negated
    members = list(_MEMBER.finditer(body))
    for member in members:
        before, after = text[: start + member.start()], text[start + member.end() :]
        if len(members) > 1:
            yield before + after
        if member[2] is not None:
            low, high = _ordinal(member[1]), _ordinal(member[2])
            for first, last in ((low - 1, high), (low + 1, high), (low, high - 1), (low, high + 1)):
                if first <= last:
                    yield f"{before}\\x{first:02x}-\\x{last:02x}{after}"


def _ordinal(character: str) -> int:
    return int(character.replace("\\x", "0x"), 0) if character.startswith("\\x") else ord(character[-1])


def _without_alternative(pattern: str) -> Iterator[str]:
    """Yield the pattern without one of its alternatives, at any depth; a piece of a pattern may close more than it opens."""
    open_at: list[list[int]] = [[0]]  # of each group around: where it and its alternatives start
    for token in _TOKEN.finditer(pattern):
        if token.lastgroup == "open":
            open_at.append([token.end()])
        elif token.lastgroup == "or":
            open_at[-1].append(token.end())
        elif token.lastgroup == "close":
            yield from _one_dropped(pattern, open_at.pop(), token.start())
            open_at = open_at or [[token.end()]]
    yield from _one_dropped(pattern, open_at.pop(), len(pattern))


def _one_dropped(pattern: str, starts: list[int], end: int) -> Iterator[str]:
    if len(starts) == 1:
        return
    ends = [start - 1 for start in starts[1:]] + [end]
    parts = [pattern[start:stop] for start, stop in zip(starts, ends, strict=True)]
    for dropped in range(len(parts)):
        kept = "|".join(part for place, part in enumerate(parts) if place != dropped)
        yield pattern[: starts[0]] + kept + pattern[end:]


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
