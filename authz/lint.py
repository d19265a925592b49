"""`clientpolicy lint`: every error in every manifest, with file, line and field; and what opens more than it seems."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Final

from authz.assembly import platform_of
from authz.core.cautions import cautions_on
from authz.edge.cautions import cautions_of
from authz.edge.manifests import TEXT_MAX_CHARACTERS, Unreadable
from authz.edge.policy_files import Manifest, manifest_files, read_file, read_manifests, real_path
from authz.edge.settings import load
from authz.edge.source import Cautions
from authz.policy import FieldError, Source
from authz.policy.cautions import R4, cautions
from authz.policy.ceilings import Ceiling
from authz.policy.claims import sans_of

STANDARD_INPUT: Final = Path("-")
_INPUT_MAX_BYTES: Final = 4 * TEXT_MAX_CHARACTERS + 1  # of UTF-8: what is longer is refused, never read to its end
Claim = tuple[tuple[str | int, ...], str]  # where it stands, and what is claimed


class Severity(Enum):
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to be told: what is wrong (an error), opens more or does less than it seems, or is worth knowing."""

    severity: Severity
    file: str
    line: int | None  # None in a configuration, whose fields are told by their keys
    field: str
    message: str

    def __str__(self) -> str:
        kind = "" if self.severity is Severity.ERROR else self.severity.value
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(filter(None, (where, self.field, kind, self.message)))

    def plain(self) -> dict[str, str | int | None]:
        return {
            "severity": self.severity.value,
            "file": self.file,
            "line": self.line,
            "field": self.field,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What there is to tell, and how many policies were looked at."""

    found: tuple[Finding, ...]
    policies: int

    @property
    def errors(self) -> tuple[str, ...]:
        return tuple(str(one) for one in self.found if one.severity is Severity.ERROR)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(str(one) for one in self.found if one.severity is not Severity.ERROR)

    @property
    def summary(self) -> str:
        """What was looked at, in a line: `3 policies, no error, 2 warnings`."""
        counts = Counter(one.severity for one in self.found)
        warnings = counts[Severity.WARNING]
        policies = "1 policy" if self.policies == 1 else f"{self.policies} policies"
        return ", ".join((policies, _counted(counts[Severity.ERROR], "error"), *_some(warnings, "warning")))


def _counted(count: int, thing: str) -> str:
    return f"{count or 'no'} {thing}{'s' if count > 1 else ''}"


def _some(count: int, thing: str) -> tuple[str, ...]:
    return (_counted(count, thing),) if count else ()


def lint(paths: tuple[Path, ...]) -> Findings:
    """Return the findings in all manifests at `paths`; `-` is standard input.

    Raises:
        OSError: a path cannot be read.
    """
    return _lint(paths, (), partial(cautions, vocabulary=R4))


def lint_with(config: Path, environment: Mapping[str, str], paths: tuple[Path, ...]) -> Findings:
    """Return the findings in a configuration, and in manifests as it meets them: by default its own.

    Raises:
        Misconfigured: with every mistake in the configuration.
        OSError: a path cannot be read.
    """
    settings = load(config, environment)
    own = (settings.policies.path,) if settings.policies.path is not None else ()
    found = _lint(paths or own, settings.ceilings, partial(cautions_on, platform=platform_of(settings)))
    told = (
        Finding(severity=Severity.WARNING, file=str(config), line=None, field=one.place, message=one.message)
        for one in cautions_of(settings)
    )
    return Findings(found=(*told, *found.found), policies=found.policies)


def _lint(paths: Iterable[Path], ceilings: tuple[Ceiling, ...], cautions_for: Cautions) -> Findings:
    found: list[Finding] = []
    manifests: list[Manifest] = []
    for file in _files(paths):
        try:
            read = _read(file, ceilings)
        except Unreadable as wrong:
            found.append(_of_file(Severity.ERROR, file, wrong.line, wrong.message))
            continue
        manifests.extend(read)
        if not read:
            found.append(_of_file(Severity.NOTE, file, 1, "no ClientPolicy in this file"))
    for manifest in manifests:
        found.extend(_of_field(Severity.ERROR, manifest, wrong) for wrong in manifest.wrong)
    found.extend(_conflicts(manifests))
    for manifest in manifests:
        found.extend(_notes(manifest, cautions_for))
    return Findings(found=tuple(found), policies=len(manifests))


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    """Return each file once, however often it is named."""
    files = (file for path in paths for file in ((STANDARD_INPUT,) if path == STANDARD_INPUT else manifest_files(path)))
    found: dict[Path, Path] = {}
    for file in files:
        found.setdefault(file if file == STANDARD_INPUT else real_path(file), file)
    return found.values()


def _read(file: Path, ceilings: tuple[Ceiling, ...]) -> tuple[Manifest, ...]:
    if file == STANDARD_INPUT:
        return read_manifests(sys.stdin.buffer.read(_INPUT_MAX_BYTES), file, str(file), ceilings)
    return read_file(file, str(file), ceilings)


def _of_file(severity: Severity, file: Path, line: int, message: str) -> Finding:
    return Finding(severity=severity, file=str(file), line=line, field="", message=message)


def _of_field(severity: Severity, manifest: Manifest, told: FieldError) -> Finding:
    line = manifest.document.line(told.path)
    return Finding(severity=severity, file=manifest.shown, line=line, field=told.place, message=told.message)


def _conflicts(manifests: list[Manifest]) -> Iterator[Finding]:
    """Report what two policies claim: from files neither would hold it, on Kubernetes only the older."""
    for claims in (_names, _client_ids, _sans, _fingerprints):
        yield from _claimed_twice(manifests, claims)


def _names(manifest: Manifest) -> Iterable[Claim]:
    return ((("metadata", "name"), manifest.name),) if manifest.name else ()


def _client_ids(manifest: Manifest) -> Iterable[Claim]:
    return ((("spec", "clientId"), manifest.policy.spec.client_id),) if manifest.policy is not None else ()


def _sans(manifest: Manifest) -> Iterable[Claim]:
    claimed = sans_of(manifest.policy) if manifest.policy is not None else ()
    return tuple((("spec", "identity", *place), name) for place, name in claimed)


def _fingerprints(manifest: Manifest) -> Iterable[Claim]:
    listed = manifest.policy.spec.certificate.fingerprints if manifest.policy is not None else ()
    field = ("spec", "certificate", "fingerprints")
    return tuple(((*field, place), sha256) for place, sha256 in enumerate(listed))


def _claimed_twice(manifests: list[Manifest], claims: Callable[[Manifest], Iterable[Claim]]) -> Iterator[Finding]:
    first: dict[str, tuple[int, str]] = {}
    for position, manifest in enumerate(manifests):
        for path, claim in claims(manifest):
            line = manifest.document.line(path)
            owner, where = first.setdefault(claim, (position, f"{manifest.shown}:{line}"))
            if owner != position:
                told = FieldError(path=path, message=f"`{claim}` is also claimed at {where}")
                yield _of_field(Severity.ERROR, manifest, told)


def _notes(manifest: Manifest, cautions_for: Cautions) -> Iterator[Finding]:
    policy = manifest.policy
    if policy is None:
        return
    for caution in cautions_for(policy):
        yield _of_field(Severity.WARNING, manifest, caution)
    source = policy.spec.certificate.source
    if source in (Source.ISSUED, Source.CSR):
        told = (
            f"{source.value} needs the operator; read from files, this policy identifies nobody (External and None do)"
        )
        yield _of_field(Severity.NOTE, manifest, FieldError(path=("spec", "certificate", "source"), message=told))
