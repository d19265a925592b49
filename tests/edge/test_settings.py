"""Configuration: defaults as designed, environment over file, and every mistake at once with its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from partner import Certificate, Site, certificate

from authz.assembly import anonymous_of, client_address_of, rules_of, style_of
from authz.core.hops import Proxies
from authz.edge.overrides import Misconfigured
from authz.edge.settings import Settings, load
from authz.model import Compartment, Fhir
from authz.policy.limits import RateLimit
from authz.wire.request import ClientAddress

MINIMAL: dict[str, Any] = {"policies": {"path": "policies"}}
ISSUER = {"name": "a", "issuer": "https://a.example.org/", "audiences": ["x"]}


def read(folder: Path, environment: dict[str, str] | None = None, **config: Any) -> Settings:
    (folder / "policies").mkdir(exist_ok=True)
    file = folder / "authz.yaml"
    file.write_text(yaml.safe_dump(MINIMAL | config))
    return load(file, environment or {})


def mistakes(folder: Path, environment: dict[str, str] | None = None, **config: Any) -> tuple[str, ...]:
    with pytest.raises(Misconfigured) as wrong:
        read(folder, environment, **config)
    return wrong.value.mistakes


def test_defaults_are_the_designs(tmp_path: Path) -> None:
    settings = read(tmp_path, issuers=[ISSUER])
    assert settings.listen.grpc == "127.0.0.1:9191"
    assert settings.listen.ops == "127.0.0.1:9192"
    assert settings.listen.max_connection_age is None
    assert settings.policies.path == tmp_path / "policies"
    assert settings.identity.trusted_hops == 1
    assert settings.fhir.base_path == "/fhir"
    assert settings.fhir.compartment is Compartment.DENY
    assert settings.public == ("GET /health", "GET /fhir/metadata", "GET /fhir/.well-known/smart-configuration")
    assert settings.store.url == "memory://"
    assert settings.store.timeout == 25_000
    assert settings.listen.deadline == 150_000
    assert settings.quota.headers == "ietf"
    assert settings.audit.path == "-"
    issuer = settings.issuers[0]
    assert issuer.algorithms == ("RS256", "ES256")
    assert issuer.leeway_seconds == 30
    assert issuer.jwks_max_age == 86_400_000_000
    assert issuer.claims.client == "client_id"


@pytest.mark.parametrize(
    ("given", "names"),
    [("a.pem", ["a.pem"]), (["a.pem"], ["a.pem"]), (["a.pem", "b.pem"], ["a.pem", "b.pem"]), (None, [])],
)
def test_client_cas_are_one_file_or_several(tmp_path: Path, given: object, names: list[str]) -> None:
    found = read(tmp_path, identity={"clientCa": given}).identity.client_ca
    assert list(found or ()) == [tmp_path / name for name in names]
    environment = {"CLIENTPOLICY_IDENTITY__CLIENT_CA": yaml.safe_dump(names, default_flow_style=True)}
    assert not names or read(tmp_path, environment).identity.client_ca == found


def test_client_cas_of_all_files_count(tmp_path: Path) -> None:
    one, other = certificate("one", is_ca=True), certificate("other", is_ca=True)
    for file, content in (("a.pem", one.pem), ("b.pem", other.pem + one.pem)):
        (tmp_path / file).write_text(content)
    rules = rules_of(read(tmp_path, identity={"clientCa": ["a.pem", "b.pem"]}), tmp_path)
    assert [found.subject.rfc4514_string() for found in rules.authorities] == ["CN=one", "CN=other"]
    settings = read(tmp_path, identity={"clientCa": ["a.pem", "none.pem", "policies"]})
    with pytest.raises(Misconfigured) as wrong:
        rules_of(settings, tmp_path)
    assert [line.split(": ")[:2] for line in wrong.value.mistakes] == [
        ["identity.clientCa", str(tmp_path / "none.pem")],
        ["identity.clientCa", str(tmp_path / "policies")],
    ]


def test_policies_come_from_files_or_from_a_cluster(tmp_path: Path) -> None:
    for given, namespaces in (({}, ()), ({"namespaces": []}, ()), ({"namespaces": ["a", "b"]}, ("a", "b"))):
        policies = read(tmp_path, policies={"source": "kubernetes"} | given).policies
        assert (policies.source, policies.path, policies.namespaces) == ("kubernetes", None, namespaces)
    policies = read(
        tmp_path, {"CLIENTPOLICY_POLICIES__NAMESPACES": "[a, b]"}, policies={"source": "kubernetes"}
    ).policies
    assert policies.namespaces == ("a", "b")
    policies = read(tmp_path, {"CLIENTPOLICY_POLICIES__SOURCE": "kubernetes"}, policies={}).policies
    assert (policies.source, policies.path) == ("kubernetes", None)


def test_every_mistake_about_policies_is_told_at_once(tmp_path: Path) -> None:
    found = mistakes(tmp_path, policies={"source": "kubernetes", "path": "x", "namespaces": ["A"], "pth": 1})
    assert [mistake.split(": ")[1] for mistake in found] == ["policies.path", "policies.namespaces[0]", "policies.pth"]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no CA in a list": ({"identity": {"clientCa": []}}, "identity.clientCa"),
    "a CA twice": ({"identity": {"clientCa": ["a.pem", "./a.pem"]}}, "identity.clientCa: given twice"),
    "more CAs than are looked at": ({"identity": {"clientCa": [f"{n}.pem" for n in range(17)]}}, "identity.clientCa"),
    "a CA that is no path": ({"identity": {"clientCa": [{"path": "a.pem"}]}}, "identity.clientCa[0]"),
    "connections of no age": (
        {"listen": {"maxConnectionAge": "999ms"}},
        "listen.maxConnectionAge: expected at least 1s",
    ),
    "connections of an age in words": (
        {"listen": {"maxConnectionAge": "ten"}},
        "listen.maxConnectionAge: expected a duration",
    ),
    "policies missing": ({"policies": None}, "policies"),
    "path missing": ({"policies": {}}, "policies.path: required"),
    "unknown key": ({"polices": 1}, "polices: no such field"),
    "source": ({"policies": {"source": "git", "path": "x"}}, "policies.source"),
    "files without a path": ({"policies": {"source": "files"}}, "policies.path: required"),
    "files and namespaces": (
        {"policies": {"path": "x", "namespaces": ["a"]}},
        "policies.namespaces: goes with source: kubernetes",
    ),
    "files and no namespaces": (
        {"policies": {"path": "x", "namespaces": []}},
        "policies.namespaces: goes with source: kubernetes",
    ),
    "a cluster and a path": (
        {"policies": {"source": "kubernetes", "path": "x"}},
        "policies.path: goes with source: files",
    ),
    "namespace": ({"policies": {"source": "kubernetes", "namespaces": ["A_b"]}}, "policies.namespaces[0]"),
    "namespace twice": (
        {"policies": {"source": "kubernetes", "namespaces": ["a", "a"]}},
        "policies.namespaces: given twice: a",
    ),
    "65 namespaces": (
        {"policies": {"source": "kubernetes", "namespaces": [f"n{n}" for n in range(65)]}},
        "policies.namespaces",
    ),
    "listen": ({"listen": {"grpc": "9191"}}, "listen.grpc: expected HOST:PORT"),
    "port": ({"listen": {"ops": "127.0.0.1:70000"}}, "listen.ops: expected HOST:PORT"),
    "hops without proxies": (
        {"identity": {"trustedHops": 2}},
        "identity: trustedHops above 1 needs trustedProxies: the URIs of the proxies' certificates; and what proves a",
    ),
    "proxies known by name alone": (
        {"identity": {"trustedHops": 2, "trustedProxies": ["urn:a"]}},
        "identity: trustedHops above 1 needs what proves a proxy, for a name alone can be forged: proxyCa",
    ),
    "proxies that are not verified": (
        {"identity": {"trustedHops": 2, "trustedProxies": ["urn:a"], "proxiesVerified": False}},
        "identity: trustedHops above 1 needs what proves a proxy",
    ),
    "proxies without names": (
        {"identity": {"trustedHops": 2, "proxiesVerified": True}},
        "identity: trustedHops above 1 needs trustedProxies: the URIs of the proxies' certificates",
    ),
    "fingerprint of a proxy": ({"identity": {"proxyFingerprints": ["ab"]}}, "identity.proxyFingerprints[0]"),
    "fingerprint of a proxy twice": (
        {"identity": {"proxyFingerprints": ["ab" * 32, "AB" * 32]}},
        "identity.proxyFingerprints: given twice",
    ),
    "257 proxies": (
        {"identity": {"proxyFingerprints": [f"{number:064x}" for number in range(257)]}},
        "identity.proxyFingerprints",
    ),
    "no hops": ({"identity": {"trustedHops": 0}}, "identity.trustedHops"),
    "address source": ({"identity": {"clientAddress": {"from": "header"}}}, "identity.clientAddress.from"),
    "issuer without audience": ({"issuers": [ISSUER | {"audiences": []}]}, "issuers[0].audiences"),
    "issuer over http": (
        {"issuers": [ISSUER | {"issuer": "http://a.example.org"}]},
        "issuers[0].issuer: expected https",
    ),
    "issuer no URL": ({"issuers": [ISSUER | {"issuer": "https://[x"}]}, "issuers[0].issuer: not a URL"),
    "issuer with credentials": (
        {"issuers": [ISSUER | {"issuer": "https://u:p@a"}]},
        "issuers[0].issuer: expected a URL",
    ),
    "jwksUri over http": ({"issuers": [ISSUER | {"jwksUri": "http://a/jwks"}]}, "issuers[0].jwksUri: expected https"),
    "both key sources": (
        {"issuers": [ISSUER | {"jwksUri": "https://a/jwks", "jwksFile": "x"}]},
        "issuers[0]: jwksUri and jwksFile exclude each other",
    ),
    "CA of keys that are not fetched": (
        {"issuers": [ISSUER | {"ca": "ca.pem", "jwksFile": "x"}]},
        "issuers[0]: ca and proxy go with keys that are fetched",
    ),
    "proxy of keys that are not fetched": (
        {"issuers": [ISSUER | {"proxy": "http://a:3128", "jwksFile": "x"}]},
        "issuers[0]: ca and proxy go with keys that are fetched",
    ),
    "proxy without scheme": ({"issuers": [ISSUER | {"proxy": "a:3128"}]}, "issuers[0].proxy: expected a proxy"),
    "proxy of another kind": ({"issuers": [ISSUER | {"proxy": "socks5://a"}]}, "issuers[0].proxy: expected a proxy"),
    "proxy without host": ({"issuers": [ISSUER | {"proxy": "http://:3128"}]}, "issuers[0].proxy: expected a proxy"),
    "proxy with a path": ({"issuers": [ISSUER | {"proxy": "http://a/b"}]}, "issuers[0].proxy: expected a proxy"),
    "proxy with a query": ({"issuers": [ISSUER | {"proxy": "http://a?b"}]}, "issuers[0].proxy: expected a proxy"),
    "proxy whose user has a colon": (
        {"issuers": [ISSUER | {"proxy": "http://a%3Ab@a"}]},
        "issuers[0].proxy: expected a proxy",
    ),
    "proxy no URL": ({"issuers": [ISSUER | {"proxy": "http://[a"}]}, "issuers[0].proxy: not a URL"),
    "HMAC": ({"issuers": [ISSUER | {"algorithms": ["HS256"]}]}, "issuers[0].algorithms[0]: expected one of"),
    "none": ({"issuers": [ISSUER | {"algorithms": ["none"]}]}, "issuers[0].algorithms[0]: expected one of"),
    "leeway": ({"issuers": [ISSUER | {"leewaySeconds": 121}]}, "issuers[0].leewaySeconds"),
    "max age": ({"issuers": [ISSUER | {"jwksMaxAge": "1 day"}]}, "issuers[0].jwksMaxAge: expected a duration"),
    "max age a number": ({"issuers": [ISSUER | {"jwksMaxAge": 5}]}, "issuers[0].jwksMaxAge: expected a duration"),
    "max age too short": ({"issuers": [ISSUER | {"jwksMaxAge": "59s"}]}, "issuers[0].jwksMaxAge: expected at least 1m"),
    "issuer twice": ({"issuers": [ISSUER, ISSUER | {"name": "b"}]}, "issuers: issuer given twice"),
    "issuer name twice": ({"issuers": [ISSUER, ISSUER | {"issuer": "https://b"}]}, "issuers: name given twice: a"),
    "base path": ({"fhir": {"basePath": "fhir"}}, "fhir.basePath: expected an absolute path"),
    "base path with dots": ({"fhir": {"basePath": "/a/../b"}}, "fhir.basePath: expected an absolute path"),
    "compartment": ({"fhir": {"compartment": "allow"}}, "fhir.compartment"),
    "public without method": ({"public": ["/health"]}, "public[0]: expected METHOD /path"),
    "public ambiguous": ({"public": ["GET /a/../b"]}, "public[0]"),
    "public with query": ({"public": ["GET /a?b"]}, "public[0]: a path without query"),
    "public wildcard inside": ({"public": ["GET /a/*/b"]}, "public[0]: a path without query"),
    "password of nothing": (
        {"store": {"passwordFile": "pw"}},
        "store.url: memory:// has no password: passwordFile goes with a Redis",
    ),
    "password's file": ({"store": {"url": "redis://h", "passwordFile": "pw"}}, "store.url: passwordFile: "),
    "timeout too short": ({"store": {"timeout": "999us"}}, "store.timeout: expected at least 1ms"),
    "timeout as a number": ({"store": {"timeout": 25}}, "store.timeout: expected a duration such as"),
    "timeout of the deadline": ({"store": {"timeout": "150ms"}}, "store: timeout: expected less than listen.deadline"),
    "timeout beyond the deadline": (
        {"store": {"timeout": "25ms"}, "listen": {"deadline": "20ms"}},
        "store: timeout: expected less than listen.deadline",
    ),
    "deadline too short": ({"listen": {"deadline": "1ms"}}, "listen.deadline: expected above 1ms and at most 10s"),
    "deadline too long": ({"listen": {"deadline": "11s"}}, "listen.deadline: expected above 1ms and at most 10s"),
    "store": ({"store": {"url": "mysql://x"}}, "store.url: expected a URL that begins with"),
    "prefix with a slot": ({"store": {"prefix": "{a}:"}}, "store.prefix: expected up to 64 printable"),
    "prefix too long": ({"store": {"prefix": "a" * 65}}, "store.prefix: expected up to 64 printable"),
    "no hash key": ({"store": {"hashKey": ""}}, "store.hashKey: expected 1 to 64 bytes"),
    "hash key too long": ({"store": {"hashKey": "é" * 33}}, "store.hashKey: expected 1 to 64 bytes"),
    "store with options": ({"store": {"url": "redis://h?retry=1"}}, "store.url: retry: no such option"),
    "store's CA": ({"store": {"url": "rediss://h?ssl_ca_certs=no.pem"}}, "store.url: ssl_ca_certs: "),
    "ceiling for nobody": ({"ceilings": [{"clientIds": ["a"]}]}, "ceilings[0].namespaces: required"),
    "ceiling of an unknown bound": (
        {"ceilings": [{"namespaces": ["a"], "rate": 1}]},
        "ceilings[0].rate: no such field",
    ),
    "ceiling's mode": ({"ceilings": [{"namespaces": ["a"], "modes": ["Log"]}]}, "ceilings[0].modes[0]"),
    "ceiling's rate": ({"ceilings": [{"namespaces": ["a"], "requestsPerSecond": 0}]}, "ceilings[0].requestsPerSecond"),
    "ceiling's scope": ({"ceilings": [{"namespaces": ["a"], "scopes": ["patient/*.q"]}]}, "ceilings[0].scopes[0]"),
    "anonymous": ({"quota": {"anonymous": {"requests": 0, "per": "1s"}}}, "quota.anonymous: requests is from 1"),
    "anonymous without a time": ({"quota": {"anonymous": {"requests": 5}}}, "quota.anonymous.per: required"),
    "anonymous without a number": ({"quota": {"anonymous": {"per": "1s"}}}, "quota.anonymous.requests: required"),
    "hops from nowhere": ({"identity": {"clientAddress": {"trustedHops": 2}}}, "identity.clientAddress.from: required"),
    "headers": ({"quota": {"headers": "x"}}, "quota.headers"),
    "replicas": ({"quota": {"replicas": 0}}, "quota.replicas"),
    "shadow": ({"shadow": "never"}, "shadow"),
}


@pytest.mark.parametrize(("config", "expected"), BAD.values(), ids=BAD.keys())
def test_mistake_is_named_by_its_key(tmp_path: Path, config: dict[str, Any], expected: str) -> None:
    found = mistakes(tmp_path, **config)
    assert len(found) == 1
    assert found[0].startswith(f"{tmp_path / 'authz.yaml'}: {expected}")


GIVEN: dict[str, tuple[dict[str, Any], int]] = {
    "nothing": ({}, 21),
    "another key of quota": ({"headers": "none"}, 21),
    "without burst": ({"anonymous": {"requests": 100_000, "per": "1s"}}, 100_000),
    "burst of nothing": ({"anonymous": {"requests": 10, "per": "1s", "burst": None}}, 10),
    "with burst": ({"anonymous": {"requests": 10, "per": "1s", "burst": 3}}, 4),
}


@pytest.mark.parametrize(("quota", "capacity"), GIVEN.values(), ids=GIVEN.keys())
def test_anonymous_quota_that_is_given_replaces_its_default_whole(
    tmp_path: Path, quota: dict[str, Any], capacity: int
) -> None:
    (limit,) = anonymous_of(read(tmp_path, quota=quota))
    assert isinstance(limit, RateLimit)
    assert limit.capacity == capacity


def test_part_of_an_object_in_the_environment_asks_for_the_rest(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, {"CLIENTPOLICY_QUOTA__ANONYMOUS__REQUESTS": "5"})
    assert "quota.anonymous.per: required" in told
    read(tmp_path, {"CLIENTPOLICY_QUOTA__ANONYMOUS__REQUESTS": "5", "CLIENTPOLICY_QUOTA__ANONYMOUS__PER": "1m"})


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    assert len(mistakes(tmp_path, listen={"grpc": "x"}, store={"url": "x"}, shadow="x", nonsense=1)) == 4


@pytest.mark.parametrize("text", ["[", "- a", "a: 1\n---\nb: 2", "a: !x 1"])
def test_file_that_is_no_map_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "authz.yaml"
    file.write_text(text)
    with pytest.raises(Misconfigured, match=str(file)):
        load(file, {})


def test_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="No such file"):
        load(tmp_path / "none.yaml", {})
    (tmp_path / "b.yaml").write_bytes(b"\xff")
    with pytest.raises(Misconfigured, match="UTF-8"):
        load(tmp_path / "b.yaml", {})


def test_empty_file_needs_only_what_is_required(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("")
    with pytest.raises(Misconfigured, match="policies: required"):
        load(tmp_path / "a.yaml", {})
    assert load(tmp_path / "a.yaml", {"CLIENTPOLICY_POLICIES__PATH": "p"}).policies.path == tmp_path / "p"


def test_environment_overrides_any_key_and_makes_parents(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        {
            "CLIENTPOLICY_STORE__URL": "redis://h:6379/0",
            "CLIENTPOLICY_FHIR__BASE_PATH": "/r4",
            "CLIENTPOLICY_IDENTITY__TRUSTEDHOPS": "2",
            "CLIENTPOLICY_IDENTITY__TRUSTED_PROXIES": "[spiffe://a, spiffe://b]",
            "CLIENTPOLICY_IDENTITY__PROXIESVERIFIED": "true",
            "CLIENTPOLICY_ISSUERS__0__LEEWAY_SECONDS": "5",
            "CLIENTPOLICY_ISSUERS__1": "{name: b, issuer: 'https://b', audiences: [x]}",
            "CLIENTPOLICY_UPSTREAM__REMOVE_XFCC": "true",
            "CLIENTPOLICY_STORE__PREFIX": "12",
            "OTHER": "x",
        },
        issuers=[ISSUER],
    )
    assert settings.store.url == "redis://h:6379/0"
    assert settings.store.prefix == "12"
    assert settings.fhir.base_path == "/r4"
    assert settings.identity.trusted_hops == 2
    assert settings.identity.trusted_proxies == ("spiffe://a", "spiffe://b")
    assert [issuer.name for issuer in settings.issuers] == ["a", "b"]
    assert settings.issuers[0].leeway_seconds == 5
    assert settings.upstream.remove_xfcc


@pytest.mark.parametrize(
    "name", ["CLIENTPOLICY_ISSUERS__5__NAME", "CLIENTPOLICY_ISSUERS__X", "CLIENTPOLICY_SHADOW__A", "CLIENTPOLICY_"]
)
def test_variable_that_names_no_place_is_a_mistake(tmp_path: Path, name: str) -> None:
    found = mistakes(tmp_path, {name: "x"}, issuers=[ISSUER], shadow="forbid")
    assert name in found[0]


def test_variable_that_is_no_yaml_is_a_mistake(tmp_path: Path) -> None:
    assert "CLIENTPOLICY_PUBLIC" in mistakes(tmp_path, {"CLIENTPOLICY_PUBLIC": "[a"})[0]
    assert "polcies" in mistakes(tmp_path, {"CLIENTPOLICY_POLCIES__X": "1"})[0]


def test_files_that_the_settings_name_are_read_and_told_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("not PEM")
    (tmp_path / "empty.json").write_text('{"keys": []}')
    settings = read(
        tmp_path,
        policies={"path": "nowhere"},
        identity={"clientCa": "bad.pem", "proxyCa": "none.pem"},
        listen={"tls": {"cert": "bad.pem", "key": "bad.pem", "clientCa": "none.pem"}},
        issuers=[
            ISSUER | {"jwksFile": "none.json"},
            ISSUER | {"name": "b", "issuer": "https://b", "jwksFile": "empty.json"},
            ISSUER | {"name": "c", "issuer": "https://c", "ca": "bad.pem"},
            ISSUER | {"name": "d", "issuer": "https://d", "ca": "none.pem"},
        ],
    )
    with pytest.raises(Misconfigured) as wrong:
        rules_of(settings, tmp_path)
    found = wrong.value.mistakes
    keys = [mistake.split(": ")[0] for mistake in found]
    assert keys == [
        "identity.clientCa",
        "identity.proxyCa",
        "listen.tls.cert",
        "listen.tls.key",
        "listen.tls.clientCa",
        "policies.path",
        "issuers[0].jwksFile",
        "issuers[1].jwksFile",
        "issuers[2].ca",
        "issuers[3].ca",
    ]
    assert all(str(tmp_path) in mistake for mistake in found)
    assert not any("not PEM" in mistake for mistake in found)


def test_key_of_another_certificate_is_told(tmp_path: Path) -> None:
    for name in ("one", "two"):
        made = certificate(name)
        (tmp_path / f"{name}.crt").write_text(made.pem)
        pem = made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{name}.key").write_bytes(pem)
    rules_of(read(tmp_path, listen={"tls": {"cert": "one.crt", "key": "one.key"}}), tmp_path)
    with pytest.raises(Misconfigured, match="not the key of the certificate"):
        rules_of(read(tmp_path, listen={"tls": {"cert": "one.crt", "key": "two.key"}}), tmp_path)


def test_ca_of_proxies_is_a_ca_and_not_the_clients(tmp_path: Path) -> None:
    clients, proxies, leaf = (certificate(name, is_ca=name != "leaf") for name in ("clients", "proxies", "leaf"))
    (tmp_path / "ca.pem").write_text(clients.pem)

    def told(source: dict[str, Any], *in_file: Certificate) -> tuple[str, ...]:
        (tmp_path / "proxies.pem").write_text("".join(one.pem for one in in_file))
        proven = {"trustedHops": 2, "trustedProxies": ["urn:a"], "proxyCa": "proxies.pem"}
        try:
            rules = rules_of(read(tmp_path, policies=source, identity=proven), tmp_path)
        except Misconfigured as wrong:
            return wrong.mistakes
        assert rules.proxies.authorities == tuple(one.parsed for one in in_file)
        assert rules.proxies.uris == {"urn:a"}
        return ()

    files, cluster = {"path": str(tmp_path)}, {"source": "kubernetes"}
    assert told(files, proxies) == told(cluster, proxies) == ()
    (mistake,) = told(files, proxies, leaf)
    assert (
        f"identity.proxyCa: {tmp_path}/proxies.pem: not the certificate of a CA: SHA-256 {leaf.fingerprint}" in mistake
    )
    (mistake,) = told(cluster, proxies, clients)  # there policies choose the URIs that it signs
    assert "holds a CA of identity.clientCa, too" in mistake
    assert told(files, proxies, clients) == ()


def test_proxies_are_read_by_name_fingerprint_or_word(tmp_path: Path) -> None:
    proven = {"trustedHops": 3, "trustedProxies": ["urn:a"], "proxyFingerprints": ["AB" * 32], "proxiesVerified": True}
    rules = rules_of(read(tmp_path, policies={"path": str(tmp_path)}, identity=proven), tmp_path)
    assert rules.proxies == Proxies(frozenset({"urn:a"}), frozenset({"ab" * 32}), are_verified=True)


def test_rules_and_style_are_what_the_settings_say(site: Site) -> None:
    (site.folder / "ca.pem").write_text(certificate("CA", is_ca=True).pem)
    settings = load(
        site.write(
            public=["GET /health", "GET /docs/*"],
            fhir={"basePath": "/r4/", "compartment": "delegate"},
            identity={"clientAddress": {"from": "x-forwarded-for", "trustedHops": 2}},
            upstream={"removeAuthorization": True},
            quota={"headers": "legacy"},
        ),
        {},
    )
    rules, style = rules_of(settings, site.folder), style_of(settings)
    assert len(rules.authorities) == 1
    assert rules.public.match("GET", "/docs/x")
    assert rules.fhir == style.fhir == Fhir("/r4", Compartment.DELEGATE, parameters={}, pins={})
    assert style.remove_authorization
    assert client_address_of(settings) == ClientAddress(2)
