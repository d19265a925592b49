"""Which characters a grammar takes in one place: tried one by one, so that no range of it can be off by one."""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_letters, digits

# Latin as far as characters that fold to ASCII, other digits and letters, and what is invisible.
CHARACTERS = [*map(chr, range(0x180)), "\u0661", "\u202e", "\u200b", "\ue000", "\uff21", "\u2028", "\u212a"]
VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
ALNUM = ascii_letters + digits
HEX = digits + "abcdefABCDEF"


def without(characters: str, gone: str) -> str:
    return "".join(character for character in characters if character not in gone)


def taken(frame: str, accepts: Callable[[str], object]) -> set[str]:
    """Return the characters with which a text is accepted where the frame has `{}`."""
    return {character for character in CHARACTERS if accepts(frame.replace("{}", character))}
