"""Why a demonstration cannot go on."""

from __future__ import annotations


class DemoFailed(Exception):  # noqa: N818 it is what the demonstration did
    """A part did not do what it should; the text is for the person in front."""


class Unusable(DemoFailed):
    """What was asked for cannot be used here: a port, a Redis, a missing package."""
