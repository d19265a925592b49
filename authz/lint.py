"""`clientpolicy lint`: every error in every manifest, with file, line and field; and what opens more than it seems."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from authz.assembly import platform_of
from authz.core.cautions import cautions_on
from authz.edge.cautions import cautions_of
from authz.edge.manifests import Unreadable
from authz.edge.policy_files import Manifest, manifest_files, read_file
from authz.edge.settings import load
from authz.edge.source import Cautions
from authz.policy import Source
from authz.policy.cautions import R4, cautions
from authz.policy.ceilings import Ceiling


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
    return _lint(paths, (), partial(cautions, vocabulary=R4))


def lint_with(config: Path, environment: Mapping[str, str], paths: tuple[Path, ...]) -> Findings:
    """Return the findings in a configuration, and in manifests as it meets them: by default its own.

    Raises:
        Misconfigured: with every mistake in the configuration.
        OSError: a path cannot be read.
    """
    settings = load(config, environment)
    own = (settings.policies.path,) if settings.policies.path is not None else ()
    told = tuple(f"{config}: {caution.place}: warning: {caution.message}" for caution in cautions_of(settings))
    found = _lint(paths or own, settings.ceilings, partial(cautions_on, platform=platform_of(settings)))
    return Findings(errors=found.errors, notes=(*told, *found.notes), policies=found.policies)


def _lint(paths: Iterable[Path], ceilings: tuple[Ceiling, ...], cautions_for: Cautions) -> Findings:
    errors: list[str] = []
    notes: list[str] = []
    manifests: list[Manifest] = []
    files = {file.resolve(): file for path in paths for file in manifest_files(path)}
    for file in files.values():
        try:
            found = read_file(file, str(file), ceilings)
        except Unreadable as unreadable:
            errors.append(f"{file}:{unreadable.line}: {unreadable.message}")
            continue
        manifests.extend(found)
        if not found:
            notes.append(f"{file}:1: note: no ClientPolicy in this file")
    errors.extend(error for manifest in manifests for error in manifest.errors)
    errors.extend(_conflicts(manifests))
    for manifest in manifests:
        notes.extend(_notes(manifest, cautions_for))
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


def _notes(manifest: Manifest, cautions_for: Cautions) -> Iterator[str]:
    policy = manifest.policy
    if policy is None:
        return
    for caution in cautions_for(policy):
        yield f"{manifest.where(*caution.path)}: warning: {caution.message}"
    source = policy.spec.certificate.source
    if source in (Source.ISSUED, Source.CSR):
        yield (
            f"{manifest.where('spec', 'certificate', 'source')}: note: {source.value} needs the operator; "
            "read from files, this policy identifies nobody (External and None do)"
        )
