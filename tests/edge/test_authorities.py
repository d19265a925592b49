"""The CAs of issued certificates: taken over when the file changes, kept when it goes bad."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from partner import NOW, Site, certificate, renewed

from authz.assembly import authorities_of, rules_of
from authz.edge import authorities
from authz.edge.authorities import (
    CLIENT_CA,
    FILE_MAX_BYTES,
    PROXY_CA,
    Authorities,
    Certificates,
    Use,
    read_authorities,
    shared,
)
from authz.edge.overrides import Misconfigured
from authz.edge.settings import load

OLD, NEW = certificate("old", is_ca=True), certificate("new", is_ca=True)


def names(certificates: Certificates) -> list[str]:
    return [one.subject.rfc4514_string() for one in certificates]


def test_each_new_set_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(OLD.pem)
    source = Authorities((file,), CLIENT_CA, is_required=True)
    assert source.refresh()
    assert not source.refresh()
    file.write_text(OLD.pem + NEW.pem)
    assert source.refresh()
    assert names(source.certificates) == ["CN=old", "CN=new"]
    assert source.errors == 0


@pytest.mark.parametrize("bad", [b"", b"no certificate", OLD.pem.encode()[:200], OLD.pem.encode() * 3000, None])
def test_bad_file_keeps_the_last_good_cas(tmp_path: Path, bad: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(OLD.pem)
    source = Authorities((file,), CLIENT_CA, is_required=False)
    assert source.refresh()
    if bad is None:
        file.unlink()
    else:
        file.write_bytes(bad)
    assert not source.refresh()
    assert not source.refresh()
    assert names(source.certificates) == ["CN=old"]
    assert source.errors == 2
    assert len(caplog.records) == 1  # told once, counted each time
    file.write_text(NEW.pem)
    assert source.refresh()
    assert len(OLD.pem) * 3000 > FILE_MAX_BYTES


HALF = {
    "cut in its body": NEW.pem[:200],
    "cut in its first line": NEW.pem[:15],
    "cut in the word": NEW.pem[:8],
    "cut in its last line": NEW.pem[:-8],
    "without its last line": NEW.pem.replace("-----END CERTIFICATE-----", ""),
    "without its first dashes": NEW.pem[5:],
    "of a label that is not read": NEW.pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
    "a key, half written": "-----BEGIN PRIVATE KEY-----\nMIGH",
}


@pytest.mark.parametrize("half", HALF.values(), ids=HALF.keys())
def test_half_written_certificate_behind_a_whole_one_changes_nothing(tmp_path: Path, half: str) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(OLD.pem + NEW.pem)
    source = Authorities((file,), CLIENT_CA, is_required=True)
    assert source.refresh()
    file.write_text(OLD.pem + half)
    assert not source.refresh()
    assert (names(source.certificates), source.errors) == (["CN=old", "CN=new"], 1)


WHOLE = {
    "Windows lines": (OLD.pem + NEW.pem).replace("\n", "\r\n"),
    "comments": f"# Präfix\n{OLD.pem}\nsubject=CN = new --- 1\n{NEW.pem}\n# end",
    "no line at the end": (OLD.pem + NEW.pem).rstrip(),
    "an old label": OLD.pem + NEW.pem.replace("CERTIFICATE", "X509 CERTIFICATE"),
    "beside a key": OLD.pem + "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n" + NEW.pem,
}


@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE.keys())
def test_whole_certificates_are_read_whatever_stands_between_them(text: str) -> None:
    assert names(read_authorities(text.encode())) == ["CN=old", "CN=new"]


LEAF = certificate("leaf")
RENEWED = renewed(OLD, end=NOW + timedelta(days=60)).public_bytes(Encoding.PEM).decode()


BOTH, CLUSTER = {"path", "kubernetes"}, {"kubernetes"}
ROTATIONS: dict[str, tuple[str, str, set[str]]] = {
    "a leaf": ("proxies", LEAF.pem, BOTH),
    "a leaf beside a CA": ("proxies", NEW.pem + LEAF.pem, BOTH),
    "the clients' CA": ("proxies", NEW.pem + OLD.pem, CLUSTER),
    "the clients' CA under another certificate": ("proxies", NEW.pem + RENEWED, CLUSTER),
    "the proxies' CA": ("clients", OLD.pem + NEW.pem, CLUSTER),
    "one more certificate": ("clients", OLD.pem + LEAF.pem, set()),
    "one of the same key": ("clients", RENEWED, set()),
}


@pytest.mark.parametrize("source", ["path", "kubernetes"])
@pytest.mark.parametrize("rotation", ROTATIONS.values(), ids=ROTATIONS.keys())
def test_rotation_is_held_to_the_rules_of_a_start(
    site: Site, caplog: pytest.LogCaptureFixture, source: str, rotation: tuple[str, str, set[str]]
) -> None:
    name, text, refused_from = rotation
    is_refused = source in refused_from
    proven = {"trustedHops": 2, "trustedProxies": ["urn:a"], "clientCa": "clients.pem", "proxyCa": "proxies.pem"}
    policies = {"path": "policies"} if source == "path" else {"source": source}
    settings = load(site.write(policies=policies, identity=proven), {})
    (site.folder / "clients.pem").write_text(OLD.pem)
    (site.folder / "proxies.pem").write_text(NEW.pem)
    clients, proxies = authorities_of(settings, site.folder)
    assert proxies is not None
    assert clients.refresh()
    assert proxies.refresh()
    changed = clients if name == "clients" else proxies
    before = changed.certificates
    (site.folder / f"{name}.pem").write_text(text)
    assert changed.refresh() is not is_refused
    assert changed.errors == is_refused
    assert (changed.certificates == before) is is_refused
    told = ["CA file not read; the last good CAs hold"] if is_refused else []
    assert [record.message for record in caplog.records] == told
    with pytest.raises(Misconfigured, match=r"identity\.proxyCa") if is_refused else nullcontext():
        rules_of(settings, site.folder)


def test_key_that_cannot_be_read_is_shared_with_nobody_else() -> None:
    class Odd:
        def __init__(self, signed: bytes) -> None:
            self.tbs_certificate_bytes = signed

        def public_key(self) -> None:
            raise UnsupportedAlgorithm("odd")

    one, other = (cast(x509.Certificate, Odd(signed)) for signed in (b"one", b"other"))
    assert not tuple(shared((one, OLD.parsed), (other, NEW.parsed), "identity.clientCa"))
    assert len(tuple(shared((one,), (one,), "identity.clientCa"))) == 1


def test_folder_in_its_place_keeps_the_last_good_cas(tmp_path: Path) -> None:
    source = Authorities((tmp_path,), CLIENT_CA, is_required=True)
    assert not source.refresh()
    assert (source.certificates, source.errors) == ((), 1)


@pytest.mark.parametrize("is_required", [True, False])
def test_file_that_is_not_there_yet_is_a_mistake_only_where_it_was_asked_for(
    tmp_path: Path, *, is_required: bool
) -> None:
    file = tmp_path / "ca.pem"
    source = Authorities((file,), CLIENT_CA, is_required=is_required)
    assert not source.refresh()
    assert source.certificates == ()
    assert source.errors == is_required
    told = "identity.clientCa: no CA file yet (No such file or directory): no issued certificate is trusted"
    assert source.remark == (told if is_required else "")
    file.write_text(OLD.pem)
    assert source.refresh()
    assert source.remark == ""
    file.unlink()
    assert not source.refresh()
    assert source.remark == "", "the last good CAs hold"
    assert names(source.certificates) == ["CN=old"]


def test_files_are_one_set_and_each_keeps_its_own_last_good_cas(tmp_path: Path) -> None:
    built_in, other = tmp_path / "built-in.pem", tmp_path / "other.pem"
    built_in.write_text(OLD.pem)
    source = Authorities((built_in, other), CLIENT_CA, is_required=True)
    assert source.refresh()
    assert names(source.certificates) == ["CN=old"]
    told = f"identity.clientCa: no CA file yet at {other} (No such file or directory): no certificate of its CAs is trusted"
    assert source.remark == told
    other.write_text(NEW.pem + OLD.pem)
    assert source.refresh()
    assert not source.refresh()
    assert (names(source.certificates), source.remark) == (["CN=old", "CN=new"], "")
    other.write_text("broken")
    built_in.write_text(NEW.pem)
    assert source.refresh(), "what goes bad keeps nobody from being read"
    assert names(source.certificates) == ["CN=new", "CN=old"]
    other.write_text(NEW.pem)
    assert source.refresh()
    assert (names(source.certificates), source.remark) == (["CN=new"], "")


async def test_running_it_tells_of_a_file_that_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorities, "LOOK_S", 0.01)
    file = tmp_path / "ca.pem"
    told: list[list[str]] = []
    running = asyncio.create_task(
        Authorities((file,), CLIENT_CA, is_required=False).run(lambda found: told.append(names(found)))
    )
    async with asyncio.timeout(20):
        for expected, text in ((["CN=old"], OLD.pem), (["CN=new"], NEW.pem)):
            (tmp_path / "next").write_text(text)
            (tmp_path / "next").replace(file)
            while told[-1:] != [expected]:
                await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(told) == 2


@pytest.mark.parametrize(("use", "name"), [(CLIENT_CA, "client"), (PROXY_CA, "proxy")], ids=["clients", "proxies"])
def test_it_tells_of_its_own_file(tmp_path: Path, caplog: pytest.LogCaptureFixture, use: Use, name: str) -> None:
    source = Authorities((tmp_path / "ca.pem",), use, is_required=True)
    assert not source.refresh()
    (tmp_path / "ca.pem").write_text(OLD.pem)
    assert source.refresh()
    numbers = {number[1]: number[4] for number in source.numbers()}
    assert numbers.pop(f"clientpolicy_{name}_ca_loaded_timestamp_seconds") > 0
    assert numbers == {f"clientpolicy_{name}_ca_certificates": 1, f"clientpolicy_{name}_ca_errors": 1}
    assert [record.__dict__["key"] for record in caplog.records] == [f"identity.{name}Ca"]
