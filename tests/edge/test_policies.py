"""Policies from files: last good versions, brakes at once, deletion at once, and lint's lines."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from partner import CLIENT_ID, Site, partner_certificate, policy_document

from authz.edge.manifests import TEXT_MAX_CHARACTERS, Unreadable, read_documents
from authz.edge.policies import PolicyFolder
from authz.edge.policy_files import manifest_files
from authz.lint import lint
from authz.model import Client, Policies, Standing
from authz.policy.cautions import R4, cautions
from authz.policy.ceilings import Ceiling

MINE = partner_certificate().fingerprint


class Folder:
    def __init__(self, site: Site) -> None:
        self.site = site
        site.write()
        self.source = PolicyFolder(site.folder / "policies", may_shadow=True)
        self.policies = self.refresh()

    def refresh(self) -> Policies:
        policies = self.source.refresh()
        assert policies is not None
        self.policies = policies
        return policies

    def text(self, text: str, name: str = CLIENT_ID) -> None:
        self.site.policy_file(name).write_text(text)
        self.refresh()

    def document(self, **spec: Any) -> None:
        self.text(yaml.safe_dump(policy_document(**spec)))

    @property
    def client(self) -> Client:
        return self.policies.by_fingerprint[MINE].client


@pytest.fixture
def folder(site: Site) -> Folder:
    return Folder(site)


def test_unchanged_folder_is_no_news(folder: Folder) -> None:
    assert folder.client.standing is Standing.ACTIVE
    assert folder.source.refresh() is None


def test_deleted_file_denies_at_once(folder: Folder) -> None:
    folder.site.policy_file().unlink()
    assert MINE not in folder.refresh().by_fingerprint


def test_added_and_edited_files_apply(folder: Folder) -> None:
    folder.site.write_policy(policy_document("second"))
    assert len(folder.refresh().by_fingerprint) == 2
    folder.document(scopes=["system/*.rs"])
    assert folder.client.scopes[0].text == "system/*.rs"


def test_replaced_file_of_the_same_size_and_time_applies(folder: Folder) -> None:
    """As editors and Kubernetes mounts do it: a new file is moved over the old."""
    file = folder.site.policy_file()
    before = file.stat()
    new = file.with_suffix(".new")
    new.write_text(file.read_text().replace("Patient.read", "Patient.cuds"))
    assert new.stat().st_size == before.st_size
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(file)
    folder.refresh()
    assert folder.client.scopes[0].text == "patient/Patient.cuds"


@pytest.mark.parametrize(
    "text",
    ["{", "a: b: c", "\x00", "&a [*a]", "!!python/object:os.system {}", "kind: ClientPolicy\nkind: ClientPolicy"],
)
def test_file_that_is_no_yaml_keeps_its_last_good_version(folder: Folder, text: str) -> None:
    folder.text(text)
    assert folder.client.standing is Standing.ACTIVE
    assert len(folder.source.errors) == 1
    folder.document()
    assert folder.source.errors == ()


def test_file_that_is_no_text_keeps_its_last_good_version(folder: Folder) -> None:
    folder.site.policy_file().write_bytes(b"\xff\xfe")
    folder.refresh()
    assert folder.client.standing is Standing.ACTIVE


def test_invalid_document_keeps_its_last_good_version(folder: Folder) -> None:
    folder.document(scopes=["bad"], otherScopes=["new"])
    assert folder.client.scopes
    assert not folder.client.other_scopes
    assert "spec.scopes[0]" in folder.source.errors[0]


@pytest.mark.parametrize("suspended", [True, "true", "yes", None, 1])
def test_suspension_in_an_invalid_document_applies_at_once(folder: Folder, suspended: Any) -> None:
    document = policy_document(scopes=["bad"])
    document["spec"]["suspended"] = suspended
    folder.text(yaml.safe_dump(document))
    assert folder.client.suspended


def test_revocation_and_validity_in_an_invalid_document_apply_at_once(folder: Folder) -> None:
    folder.document(
        scopes=["bad"],
        revocation={"fingerprints": [{"sha256": MINE}], "issuedBefore": "2026-01-01T00:00:00Z"},
        validity={"notAfter": "2026-01-01T00:00:00Z"},
    )
    assert folder.client.revoked == {MINE}
    assert folder.client.issued_before_us == folder.client.not_after_us == 1_767_225_600_000_000


def test_what_can_be_read_of_a_broken_revocation_applies(folder: Folder) -> None:
    folder.document(revocation={"fingerprints": [{"sha256": "cd" * 32}]})
    folder.document(revocation={"fingerprints": [{"sha256": MINE}, {"sha256": "short"}, 5]}, validity={"notAfter": 5})
    assert folder.client.revoked == {MINE, "cd" * 32}
    assert folder.client.not_after_us is None
    folder.document(revocation=5)
    assert folder.client.revoked == {MINE, "cd" * 32}
    folder.document()
    assert folder.client.revoked == frozenset()


def test_invalid_document_that_loses_its_name_still_keeps_the_last_good(folder: Folder) -> None:
    document = policy_document()
    del document["metadata"]
    document["spec"]["suspended"] = True
    folder.text(yaml.safe_dump(document))
    assert folder.client.suspended


def test_document_that_was_never_valid_refuses_its_client_and_nobody_else(folder: Folder) -> None:
    folder.text(yaml.safe_dump(policy_document("second", scopes=["bad"])), "second")
    second = folder.policies.by_fingerprint[partner_certificate("second").fingerprint].client
    assert second.standing is Standing.INVALID
    assert folder.client.standing is Standing.ACTIVE
    folder.text(yaml.safe_dump(policy_document("second")), "second")
    assert folder.policies.by_fingerprint[partner_certificate("second").fingerprint].client.standing is Standing.ACTIVE


def test_documents_of_one_file_are_apart(folder: Folder) -> None:
    good, second = yaml.safe_dump(policy_document()), policy_document("second")
    folder.text(good + "---\n" + yaml.safe_dump(second))
    assert len(folder.policies.by_fingerprint) == 2
    second["spec"]["scopes"] = ["bad"]
    folder.text(yaml.safe_dump(second) + "---\n" + good)
    assert len(folder.policies.by_fingerprint) == 2
    folder.text(good)
    assert list(folder.policies.by_fingerprint) == [MINE]


def together(*documents: Any) -> str:
    return yaml.safe_dump_all(documents)


def listed(*documents: Any, kind: str = "List", version: str = "v1") -> str:
    return yaml.safe_dump({"apiVersion": version, "kind": kind, "metadata": {}, "items": list(documents)})


def bad(name: str = CLIENT_ID, **spec: Any) -> dict[str, Any]:
    return policy_document(name, **({"scopes": ["bad"]} | spec))


def nameless(document: dict[str, Any], metadata: Any = None) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "metadata"} | (
        {"metadata": metadata} if metadata is not None else {}
    )


def standings(policies: Policies, *names: str) -> dict[str, str]:
    """Return who is active, invalid or suspended; those whom nothing identifies are left out."""
    found = {}
    for name in names:
        credential = policies.by_fingerprint.get(partner_certificate(name).fingerprint)
        if credential is not None:
            found[name] = "suspended" if credential.client.suspended else credential.client.standing.value
    return found


ALICE, BOB, CAROL = policy_document("alice"), policy_document("bob"), bad("carol")
ABSENCE: dict[str, tuple[list[Any], dict[str, str]]] = {
    "nothing": ([], {}),
    "a new one that is invalid": ([CAROL, BOB], {"bob": "active", "carol": "invalid"}),
    "the same in another order": ([BOB, CAROL], {"bob": "active", "carol": "invalid"}),
    "both invalid": ([bad("alice"), bad("bob")], {"alice": "active", "bob": "active"}),
    "both invalid, in another order": (
        [bad("bob", suspended=True), bad("alice")],
        {"alice": "active", "bob": "suspended"},
    ),
    "one invalid, one gone": ([bad("alice")], {"alice": "active"}),
    "another's kind": (
        [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "alice"}}, BOB],
        {"bob": "active"},
    ),
    "a kind that is nearly ours": ([ALICE | {"kind": "ClientPolicies"}, BOB], {"alice": "active", "bob": "active"}),
    "another namespace": (
        [bad("alice") | {"metadata": {"name": "alice", "namespace": "elsewhere"}}, BOB],
        {"alice": "invalid", "bob": "active"},
    ),
    # A document that may be anybody's: nobody is missing.
    "no name": ([nameless(CAROL), BOB], {"alice": "active", "bob": "active", "carol": "invalid"}),
    "no name, valid but for it": ([nameless(ALICE), BOB], {"alice": "active", "bob": "active"}),
    "no name alone": ([nameless(CAROL)], {"alice": "active", "bob": "active", "carol": "invalid"}),
    "a name that is none": ([nameless(bad("alice"), {"name": 5}), BOB], {"alice": "active", "bob": "active"}),
    "a name that nothing can have": ([nameless(ALICE, {"name": "Alice!"}), BOB], {"alice": "active", "bob": "active"}),
    "a namespace that is none": (
        [nameless(ALICE, {"name": "alice", "namespace": []}), BOB],
        {"alice": "active", "bob": "active"},
    ),
    "text": (["what is this", BOB], {"alice": "active", "bob": "active"}),
    "a list that is none": ([{"apiVersion": "v1", "kind": "List", "items": 5}], {"alice": "active", "bob": "active"}),
    # What an unnamed document stops: by its client id, which never changes, or else by its place.
    "no name, suspended": ([BOB, nameless(bad("alice", suspended=True))], {"alice": "suspended", "bob": "active"}),
    "no name, suspended, of somebody new": (
        [nameless(bad("carol", suspended=True)), BOB],
        {"alice": "active", "bob": "active", "carol": "invalid"},
    ),
    "nothing but a suspension": ([{"spec": {"suspended": True}}, BOB], {"alice": "suspended", "bob": "active"}),
    "nothing but a suspension, in a new place": (
        [ALICE, BOB, {"spec": {"suspended": True}}],
        {"alice": "active", "bob": "active"},
    ),
    "no name twice": (
        [nameless(bad("alice", suspended=True)), nameless(bad("alice")), BOB],
        {"alice": "suspended", "bob": "active"},
    ),
    "one name twice": ([bad("alice"), bad("alice", suspended=True), BOB], {"alice": "suspended", "bob": "active"}),
    "one name twice, both valid": (
        [ALICE, policy_document("alice", suspended=True), BOB],
        {"alice": "suspended", "bob": "active"},
    ),
}


@pytest.mark.parametrize(("documents", "expected"), ABSENCE.values(), ids=ABSENCE.keys())
@pytest.mark.parametrize("render", [together, listed])
def test_absence_counts_per_document(
    folder: Folder, documents: list[Any], expected: dict[str, str], render: Any
) -> None:
    """Of `[alice, bob]`, whoever is not named any more is gone, also beside what is invalid."""
    folder.text(render(ALICE, BOB))
    assert standings(folder.policies, "alice", "bob") == {"alice": "active", "bob": "active"}
    folder.text(render(*documents))
    assert standings(folder.policies, "alice", "bob", "carol") == expected
    folder.text(render(BOB))
    assert standings(folder.policies, "alice", "bob", "carol") == {"bob": "active"}
    assert folder.source.errors == ()


def test_suspension_outlives_later_invalid_versions_until_a_valid_one(folder: Folder) -> None:
    for document in (bad(suspended=True), bad(suspended=False), bad(), nameless(bad(suspended=False)), "text"):
        folder.text(together(document))
        assert folder.client.suspended
    folder.document()
    assert not folder.client.suspended


def test_name_that_stands_twice_in_a_file_is_told(folder: Folder) -> None:
    folder.text(together(ALICE, ALICE))
    assert [error.partition(": ")[2] for error in folder.source.errors] == [
        "metadata.name: `partners/alice` stands 2 times in this file"
    ] * 2
    assert standings(folder.policies, "alice") == {"alice": "invalid"}


LISTS: dict[str, str] = {
    "of any kind": listed(ALICE, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}, BOB),
    "of ours": listed(ALICE, BOB, kind="ClientPolicyList", version="authz.healthtech.dev/v1alpha1"),
    "in a list": listed(yaml.safe_load(listed(ALICE)), BOB),
    "beside a document": listed(ALICE) + "---\n" + together(BOB),
    "as JSON": json.dumps({"apiVersion": "v1", "kind": "List", "items": [ALICE, BOB]}),
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS.keys())
def test_lists_are_read(folder: Folder, text: str) -> None:
    folder.text(text)
    assert standings(folder.policies, "alice", "bob") == {"alice": "active", "bob": "active"}
    assert folder.source.errors == ()


@pytest.mark.parametrize("version", ["v1\nkind: List", "authz.healthtech.dev/v1alpha1\nkind: ClientPolicyList"])
@pytest.mark.parametrize("items", ["items: []", "items: null", "items:", "metadata: {}", ""])
def test_list_without_items_is_empty_and_deletes_what_it_held(folder: Folder, version: str, items: str) -> None:
    """As Go writes an empty list: null, or not at all."""
    folder.text(listed(ALICE, BOB))
    folder.text(f"apiVersion: {version}\n{items}\n")
    assert standings(folder.policies, "alice", "bob") == {}
    assert folder.source.errors == ()
    file = folder.site.policy_file()
    assert lint((file,)).errors == ()
    assert lint((file,)).notes == (f"{file}:1: note: no ClientPolicy in this file",)


@pytest.mark.parametrize("items", ["items: 5", "items: {}", "itmes: []", "items: null\nspec: {}"])
def test_list_that_says_what_no_list_does_deletes_nothing(folder: Folder, items: str) -> None:
    folder.text(listed(ALICE, BOB))
    folder.text(f"apiVersion: v1\nkind: List\n{items}\n")
    assert standings(folder.policies, "alice", "bob") == {"alice": "active", "bob": "active"}
    (error,) = folder.source.errors
    assert error.endswith(": expected a list of ClientPolicies")


@pytest.mark.parametrize("kind", ["list", "LIST"])
def test_list_that_is_misspelt_is_told_and_deletes_nothing(folder: Folder, kind: str) -> None:
    folder.text(listed(ALICE, BOB))
    folder.text(listed(ALICE, kind=kind))
    assert standings(folder.policies, "alice", "bob") == {"alice": "active", "bob": "active"}
    (error,) = folder.source.errors
    assert error.endswith(": kind: expected `List`")


NEAR_MISSES: dict[str, dict[str, Any]] = {
    "plural": {"kind": "ClientPolicies"},
    "lower case": {"kind": "clientpolicy"},
    "another case": {"kind": "Clientpolicy"},
    "short name": {"kind": "cpol"},
    "a letter too few": {"kind": "ClientPolcy"},
    "a letter too many": {"kind": "ClientPolicyy"},
    "a hyphen": {"kind": "Client-Policy"},
    "list with a spec": {"kind": "ClientPolicyList"},
    "list of any kind with a spec": {"kind": "List"},
    "no text": {"kind": 5},
    "nothing": {"kind": None},
    "of our group": {"kind": "Policy"},
    "another group": {"apiVersion": "authz.example.org/v1alpha1"},
    "another group and kind, each nearly ours": {"apiVersion": "authz.healthtec.dev/v1", "kind": "ClientPolicies"},
    "a group nearly ours": {"apiVersion": "auth.healthtech.dev/v1", "kind": "Policy"},
    "a group in another case": {"apiVersion": "Authz.Healthtech.dev/v1alpha1"},
    "another version": {"apiVersion": "authz.healthtech.dev/v1"},
    "no version": {"apiVersion": None},
}


@pytest.mark.parametrize("changed", NEAR_MISSES.values(), ids=NEAR_MISSES.keys())
def test_what_is_nearly_a_policy_is_told_and_not_skipped(
    folder: Folder, changed: dict[str, Any], tmp_path: Path
) -> None:
    folder.text(together(ALICE | changed), "second")
    assert folder.source.errors
    assert all(error.startswith(f"{folder.site.policy_file('second')}:") for error in folder.source.errors)
    (tmp_path / "lint.yaml").write_text(together(ALICE | changed))
    assert lint((tmp_path / "lint.yaml",)).errors


FOREIGN = [
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("kustomize.config.k8s.io/v1beta1", "Kustomization"),
    ("gateway.envoyproxy.io/v1alpha1", "ClientTrafficPolicy"),
    ("gateway.envoyproxy.io/v1alpha1", "SecurityPolicy"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("security.istio.io/v1", "AuthorizationPolicy"),
    ("audit.healthtech.dev/v1", "AuditPolicy"),
    ("v1", "ConfigMapList"),
    ("v1", "list"),
    ("authz.healthtech.dev/v1alpha1", "TokenRevocation"),
    ("v1", "x" * 1_000),
]


@pytest.mark.parametrize(("version", "kind"), FOREIGN)
def test_other_kinds_are_skipped_and_a_file_without_a_policy_is_told(
    folder: Folder, version: str, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = together({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}})
    folder.text(text, "foreign")
    assert folder.source.errors == ()
    assert [record.message for record in caplog.records] == ["policy file holds no ClientPolicy"]
    file = tmp_path / "foreign.yaml"
    file.write_text(text)
    assert lint((file,)).notes == (f"{file}:1: note: no ClientPolicy in this file",)
    file.write_text(text + "---\n" + together(ALICE))
    assert lint((file,)).notes == ()


def test_other_kinds_and_hidden_files_are_not_ours(folder: Folder) -> None:
    base = folder.site.folder / "policies"
    (base / "secret.yaml").write_text("apiVersion: v1\nkind: Secret\n")
    (base / "note.txt").write_text("{")
    hidden = base / "..data"
    hidden.mkdir()
    (hidden / "x.yaml").write_text(yaml.safe_dump(policy_document()))
    (base / "team").mkdir()
    (base / "team" / "second.json").write_text("{}")
    folder.refresh()
    assert folder.client.standing is Standing.ACTIVE
    assert len(folder.source.errors) == 4


LINKS: dict[str, dict[str, str]] = {
    "to a file": {"current.yaml": "a.yaml"},
    "to a file, sorted before it": {"0.yaml": "a.yaml"},
    "to a link": {"current.yaml": "latest.yaml", "latest.yaml": "a.yaml"},
    "to the folder itself": {"team": "."},
    "to the folder itself, twice": {"team": ".", "other": "."},
    "to itself": {"team": "team"},
    "to a folder of a file": {"0": "z"},
}


@pytest.mark.parametrize("links", LINKS.values(), ids=LINKS.keys())
def test_each_real_file_is_read_once_by_lint_and_service_alike(site: Site, links: dict[str, str]) -> None:
    site.write()
    base = site.folder / "policies"
    site.policy_file().rename(base / "a.yaml")
    (base / "z").mkdir()
    (base / "z" / "second.YAML").write_text(yaml.safe_dump(policy_document("second")))
    for name, target in links.items():
        (base / name).symlink_to(target)
    source = PolicyFolder(base, may_shadow=True)
    policies = source.refresh()
    assert policies is not None
    assert standings(policies, CLIENT_ID, "second") == {CLIENT_ID: "active", "second": "active"}
    assert source.errors == ()
    assert (lint((base,)).errors, lint((base,)).policies) == ((), 2)
    assert base / "a.yaml" in manifest_files(base), "its own name, which outlives the links"


def test_file_behind_links_of_a_mount_keeps_its_last_good_version(site: Site) -> None:
    """As the kubelet swaps `..data`: the file is another one, and still the version before of the same policy."""
    site.write()
    base = site.folder / "policies"
    for name, text in (("..1", site.policy_file().read_text()), ("..2", "{")):
        (base / name).mkdir()
        (base / name / "app.yaml").write_text(text)
    site.policy_file().unlink()
    (base / "..data").symlink_to("..1")
    (base / "app.yaml").symlink_to("..data/app.yaml")
    source = PolicyFolder(base, may_shadow=True)
    for target in ("..1", "..2"):
        (base / "..next").symlink_to(target)
        (base / "..next").replace(base / "..data")
        policies = source.refresh()
        assert policies is not None
        assert policies.by_fingerprint[MINE].client.standing is Standing.ACTIVE
    assert len(source.errors) == 1


def test_link_to_itself_is_told_and_no_traceback(site: Site) -> None:
    site.write()
    (site.folder / "policies" / "loop.yaml").symlink_to("loop.yaml")
    source = PolicyFolder(site.folder / "policies", may_shadow=True)
    assert source.refresh() is not None
    assert len(source.errors) == 1


def test_single_file_is_a_source_too(site: Site) -> None:
    site.write()
    policies = PolicyFolder(site.policy_file(), may_shadow=True).refresh()
    assert policies is not None
    assert MINE in policies.by_fingerprint


def test_folder_that_is_gone_denies_everyone(folder: Folder) -> None:
    folder.site.policy_file().unlink()
    (folder.site.folder / "policies").rmdir()
    assert folder.refresh().by_fingerprint == {}


def test_what_a_policy_does_not_do_is_told_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.write(policy_document(scopes=["patient/Pateint.read"]))
    folder = PolicyFolder(site.folder / "policies", may_shadow=True, cautions=partial(cautions, vocabulary=R4))
    policies = folder.refresh()
    assert policies is not None
    assert folder.refresh() is None
    (record,) = caplog.records
    assert record.message == "policy opens more or does less than it seems"
    assert record.__dict__["caution"].startswith(f"{site.policy_file()}:")
    assert ": spec.scopes[0]: FHIR R4 has no resource type `Pateint`" in record.__dict__["caution"]
    assert policies.by_fingerprint[MINE].client.standing is Standing.ACTIVE
    assert folder.errors == ()


# ---- YAML -------------------------------------------------------------------------------------------------------


def test_lines_are_those_of_the_fields() -> None:
    (document,) = read_documents("a: 1\nb:\n  c:\n  - x\n  - y: 2026-01-01\n")
    assert document.value == {"a": 1, "b": {"c": ["x", {"y": "2026-01-01"}]}}
    assert [document.line(path) for path in ((), ("b",), ("b", "c", 1, "y"), ("b", "c", 1, "z"), ("d",))] == [
        1,
        2,
        5,
        5,
        1,
    ]


BAD_YAML = {
    "alias of itself": ("a: &x [*x]", 1),
    "merge": ("a: &x {b: 1}\nc:\n  <<: *x", 3),
    "alias bomb": (
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)),
        1,
    ),
    "repeated key": ("a: 1\nb: 2\na: 3", 3),
    "key a number": ("1: a", 1),
    "key a list": ("? [a]\n: b", 1),
    "tag": ("a: !custom x", 1),
    "binary": ("a: !!binary aGk=", 1),
    "set": ("a: !!set {x}", 1),
    "deep": ("[" * 40 + "]" * 40, 1),
    "very deep": ("[" * 20000 + "]" * 20000, 1),
    "open": ("a: [1,\nb", 3),
    "tab": ("a:\n\t- b", 2),
    "control character": ("a: \x01", 1),
    "huge number": ("a: " + "9" * 5000, 1),
    "too long": ("#" * (TEXT_MAX_CHARACTERS + 1), 1),
}


@pytest.mark.parametrize(("text", "line"), BAD_YAML.values(), ids=BAD_YAML.keys())
def test_unreadable_yaml_names_its_line(text: str, line: int) -> None:
    with pytest.raises(Unreadable) as unreadable:
        read_documents(text)
    assert unreadable.value.line == line


def test_aliases_are_expanded() -> None:
    (document,) = read_documents("a: &x [1, {b: c}]\nd: *x")
    assert document.value == {"a": [1, {"b": "c"}], "d": [1, {"b": "c"}]}


def test_empty_documents_are_left_out() -> None:
    assert read_documents("---\n---\n# nothing\n") == ()


# ---- lint -------------------------------------------------------------------------------------------------------


def test_lint_names_file_line_and_field_of_every_error(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "apiVersion: authz.healthtech.dev/v1alpha1\n"
        "kind: ClientPolicy\n"
        "metadata: {name: a}\n"
        "spec:\n"
        "  clientId: a\n"
        "  scopes:\n"
        "  - patient/Patient.read\n"
        "  - nonsense\n"
        "  quotas:\n"
        "  - name: q\n"
        "    requests: 0\n"
        "    per: 1s\n"
        "  tokens: {}\n"
    )
    errors = lint((tmp_path,)).errors
    assert [error.rpartition(": ")[0] for error in errors if "scopes" in error] == [f"{file}:8: spec.scopes[1]"]
    assert {int(error.split(":")[1]) for error in errors} == {8, 10, 13}


def test_lines_in_a_list_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n"
        "- apiVersion: authz.healthtech.dev/v1alpha1\n  kind: ClientPolicy\n  metadata: {name: a}\n"
        "  spec:\n    clientId: a\n    scopes:\n    - nonsense\n"
        "- kind: List\n  items:\n  - kind: ClientPolicies\n    apiVersion: authz.healthtech.dev/v1alpha1\n"
        "    metadata: {name: b}\n    spec: {clientId: b}\n"
        "- kind: List\n  items: {}\n"
    )
    assert [error.rpartition(": ")[0] for error in lint((file,)).errors] == [
        f"{file}:12: spec.scopes[0]",
        f"{file}:15: kind",
        f"{file}:20: items",
    ]


@pytest.mark.parametrize("value", ["items: 5", "items: {}", "a: [b]", "[1]", "text"])
def test_what_is_no_list_has_no_items(value: str) -> None:
    (document,) = read_documents(value)
    assert document.items() == ()


def test_lint_sees_conflicts_across_files_and_notes_what_files_cannot_do(tmp_path: Path) -> None:
    for name in ("a", "b"):
        document = policy_document("a") | {"metadata": {"name": name}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(policy_document("c", certificate={"source": "Issued"})))
    findings = lint((tmp_path,))
    assert len(findings.errors) == 2
    assert all("is also claimed at" in error for error in findings.errors)
    assert len(findings.notes) == 1
    assert findings.policies == 3


SANS = {
    "URI": ({"uris": ["https://A@B.example/x"]}, {"uris": ["urn:a", "https://A@b.EXAMPLE/x"]}, "uris[1]"),
    "DNS name": ({"dnsNames": ["a.example"]}, {"dnsNames": ["a.example"]}, "dnsNames[0]"),
    "address": ({"emails": ["a@B.example"]}, {"emails": ["a@b.example"]}, "emails[0]"),
}


@pytest.mark.parametrize(("one", "other", "field"), SANS.values(), ids=SANS)
def test_lint_sees_two_policies_with_one_san(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any], field: str
) -> None:
    """As the operator compares them, who lets the older hold it."""
    for name, identity in (("a", one), ("b", other), ("c", {"uris": ["urn:c", "urn:c2"], "emails": ["A@b.example"]})):
        issued = policy_document(name, identity=identity, certificate={"source": "Issued"})
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(issued))
    (error,) = lint((tmp_path,)).errors
    assert error.startswith(f"{tmp_path / 'b.yaml'}:")
    assert f": spec.identity.{field}: " in error
    assert f"is also claimed at {tmp_path / 'a.yaml'}:" in error


@pytest.mark.parametrize(
    ("notes", "told"),
    [
        ({}, "2 policies, no error"),
        ({"scopes": ["patient/Pateint.read", "patient/Ptient.read"]}, "2 policies, no error, 2 warnings"),
        ({"scopes": ["x"]}, "2 policies, 1 error"),
        ({"scopes": ["x", "y"]}, "2 policies, 2 errors"),
    ],
)
def test_lint_says_what_it_looked_at(tmp_path: Path, notes: dict[str, Any], told: str) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(policy_document("a", certificate={"source": "None"}, **notes)))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(policy_document("b", certificate={"source": "None"})))
    assert lint((tmp_path,)).summary == told


def test_lint_tells_of_unreadable_files_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("{")
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(policy_document(scopes=["x"])))
    assert len(lint((tmp_path,)).errors) == 2


CEILING = Ceiling.model_validate({"namespaces": ["partners"], "clientIds": [CLIENT_ID], "scopes": ["patient/*.rs"]})


def test_policy_beyond_the_ceilings_is_invalid_and_its_last_good_version_holds(site: Site) -> None:
    """An edit that reaches too far changes nothing but the brakes; one that always did refuses its client."""
    site.write()
    source = PolicyFolder(site.folder / "policies", may_shadow=True, ceilings=(CEILING,))
    first = source.refresh()
    assert first is not None
    assert first.by_fingerprint[MINE].client.standing is Standing.ACTIVE
    site.write_policy(policy_document(scopes=["system/*.cruds"], suspended=True))
    second = source.refresh()
    assert second is not None
    client = second.by_fingerprint[MINE].client
    assert [scope.text for scope in client.scopes] == ["patient/Patient.read", "patient/Observation.read"]
    assert client.suspended
    (error,) = source.errors
    assert "spec.scopes[0]: beyond the platform's ceiling" in error
    assert str(site.policy_file()) in error
    fresh = PolicyFolder(site.folder / "policies", may_shadow=True, ceilings=(CEILING,)).refresh()
    assert fresh is not None
    assert fresh.by_fingerprint[MINE].client.standing is Standing.INVALID
