"""`clientpolicy lint`: every error in every manifest, with file, line and field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from authz.edge.manifests import Unreadable
from authz.edge.policy_files import Manifest, manifest_files, read_file
from authz.policy import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is wrong (`errors`), what is worth knowing (`notes`), and how many policies were read."""

    errors: tuple[str, ...]
    notes: tuple[str, ...]
    policies: int


def lint(paths: tuple[Path, ...]) -> Findings:
    """Return the findings in all manifests at `paths`.

    Raises:
        OSError: a path cannot be read.
    """
    errors: list[str] = []
    notes: list[str] = []
    manifests: list[Manifest] = []
    files = {file.resolve(): file for path in paths for file in manifest_files(path)}
    for file in files.values():
        try:
            found = read_file(file, str(file))
        except Unreadable as unreadable:
            errors.append(f"{file}:{unreadable.line}: {unreadable.message}")
            continue
        manifests.extend(found)
        if not found:
            notes.append(f"{file}:1: note: no ClientPolicy in this file")
    errors.extend(error for manifest in manifests for error in manifest.errors)
    errors.extend(_conflicts(manifests))
    notes.extend(_notes(manifests))
    return Findings(errors=tuple(errors), notes=tuple(notes), policies=len(manifests))


def _conflicts(manifests: list[Manifest]) -> Iterator[str]:
    """Report what two policies claim: from files neither would hold it, on Kubernetes only the older."""
    yield from _claimed_twice(manifests, "metadata.name", lambda manifest: (manifest.name,) if manifest.name else ())
    yield from _claimed_twice(manifests, "spec.clientId", _client_ids)
    yield from _claimed_twice(manifests, "spec.certificate.fingerprints", _fingerprints)


def _client_ids(manifest: Manifest) -> tuple[str, ...]:
    return (manifest.policy.spec.client_id,) if manifest.policy is not None else ()


def _fingerprints(manifest: Manifest) -> tuple[str, ...]:
    return manifest.policy.spec.certificate.fingerprints if manifest.policy is not None else ()


def _claimed_twice(
    manifests: list[Manifest], field: str, claims: Callable[[Manifest], tuple[str, ...]]
) -> Iterator[str]:
    first: dict[str, str] = {}
    for manifest in manifests:
        place = manifest.where(*field.split("."))
        for claim in claims(manifest):
            if claim in first:
                yield f"{place}: `{claim}` is also claimed at {first[claim]}"
            else:
                first[claim] = place.removesuffix(f": {field}")


def _notes(manifests: list[Manifest]) -> Iterator[str]:
    for manifest in manifests:
        policy = manifest.policy
        if policy is not None and policy.spec.certificate.source in (Source.ISSUED, Source.CSR):
            source = policy.spec.certificate.source.value
            yield (
                f"{manifest.where('spec', 'certificate', 'source')}: note: {source} needs the operator; "
                "read from files, this policy identifies nobody (External and None do)"
            )
