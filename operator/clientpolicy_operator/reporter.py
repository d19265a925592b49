"""Writing a status: as a patch of the very version that was read, with the events that the change is worth."""

from __future__ import annotations

from typing import Final

from clientpolicy_operator.api import Api, Conflict, NotFound, Refused, merge_patch, policies_path
from clientpolicy_operator.facts import Document, Subject
from clientpolicy_operator.roster import Roster
from clientpolicy_operator.status import with_fewer_earlier
from clientpolicy_operator.tell import Events

PREVIOUS_BEFORE: Final = 4  # earlier certificates that a status of the CRD before this one held


class Reporter:
    def __init__(self, api: Api, roster: Roster, events: Events) -> None:
        self._api = api
        self._roster = roster
        self._events = events

    async def report(self, subject: Subject, before: Document, version: str, status: Document) -> None:
        """Write it over the one that was read.

        Raises:
            ApiError: it was not written; Conflict where the object is another by now, or gone.
        """
        try:
            found = await self._write(subject, before, version, status)
        except Refused:
            shorter = with_fewer_earlier(status, PREVIOUS_BEFORE)
            if shorter == status:
                raise
            status = shorter
            found = await self._write(subject, before, version, status)
        self._roster.note(found)
        self._events.post(subject, before, status)

    async def _write(self, subject: Subject, before: Document, version: str, status: Document) -> Document:
        path = policies_path(subject.namespace, subject.name, "status")
        metadata = {"resourceVersion": version, "uid": subject.uid}
        try:
            return await self._api.patch(path, {"metadata": metadata, "status": merge_patch(before, status)})
        except NotFound:  # deleted just now
            raise Conflict(path) from None
