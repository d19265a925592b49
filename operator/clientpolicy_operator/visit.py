"""What a visit to one ClientPolicy holds: what was read, what has been done, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from clientpolicy_operator.facts import Blocked, Document, Held, Subject
from clientpolicy_operator.plan import Action


@dataclass(slots=True)
class View:
    """What has been read in this visit; None where it is to be read again."""

    subject: Subject
    status: Document
    version: str
    secret: Document | None = None
    certificate: Document | None = None


@dataclass(slots=True)
class Visit:
    failure: Blocked | None = None  # of the round before
    done: set[type[Action]] = field(default_factory=set)  # since somebody else last wrote
    reported: int | None = None


class Visited(NamedTuple):
    again: datetime | None  # when to look again; None: only an edit changes anything
    reported: int | None = None  # the generation that a status was written for


class Signed(NamedTuple):
    """A certificate that is in the ledger and in no Secret yet."""

    uid: str
    held: Held
    files: dict[str, bytes]
