"""What is sent to get at another patient's record: forms that FHIR servers read differently.

Source: what HAPI FHIR, PHP and Express were seen to read; FHIR R4 http.html, search.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random

from fhir.asking import Ask, form, get, write

LENIENT = {"Prefer": "handling=lenient"}

# How a name is written so that one reader sees `patient` and another does not.
NAMES = (
    "%20patient", "+patient", "patient%20", "patient+", "patient[]", "[patient]", "patient%5B%5D", "patient%5B0%5D",
    "%5Bpatient%5D", "patient%2570", "%2570atient", "pat%69ent", "patient%3D124%26x", "%C5%BFubject", "Patient", "PATIENT",
    "patient%00", "%00patient", "pa%00tient", "patient%01", "patient%09", "patient%0a", "patient%0d", "patient%1f",
    "patient%7f", "patient%C2%A0", "patient.", "patient:", "patient:Patient", "patient:foo", "patient:not", "patient:mdm",
    "patient:missing", "patient.identifier", "patient.link", "patient;", "patient/", "_patient", "-patient", "patients",
    "p%C3%A4tient", "%EF%BB%BFpatient", "%E2%80%8Bpatient", "amp;patient", "subject", "subject:Patient", "performer",
    "subject.identifier", "encounter.patient", "%26patient", "x%3D1%26patient", "patient%23", "", "patient%5C",
)  # fmt: skip
# How a value is written so that one reader sees 123, and another nothing, or 124.
VALUES = (
    "", "%20", "%09", "%00", "%0a", "+", ",", ",,", "%2C", "123,", ",123", "123,124", "124,123", "123%2C124",
    "123%5C%2C124", "123|124", "123%7C124", "%7C", "%7C124", "%5C", "$", "*", "%25", "%22%22", "0123", "123%20", "%20123",
    "123%00", "%00124", "123%0d%0a124", "123%0a", "123%3B124", "123;patient=124", "123%26patient=124", "123?patient=124",
    "124", "Patient/124", "Patient/", "/", "/Patient/123", "Patient/123/", "Patient//123", "patient/123", "x/Patient/124",
    "123/_history/1", "Patient/123/_history/1", "124/_history/123", "Patient/124/_history/Patient/123", "124/123",
    "Patient/123/Patient/124", "Practitioner/1/Patient/124", "http://elsewhere.example/fhir/Patient/123",
    "http://elsewhere.example/fhir/Patient/124", "ftp://x/Patient/123", "urn:uuid:123", "%23123", "Patient/123%23x",
    "Patient%3F_id=124", "Group/all", "Practitioner/nurse", "%C2%A0", "%E2%80%8B", "1" * 70, "12%33", "%31%32%34",
    "Patient%2F124", "Patient%252F124",
)  # fmt: skip
# What widens a search that is pinned.
WIDER = (
    "_include=Observation:performer", "_include=Observation:subject", "_include=*", "_include=Observation:*", "_include=",
    "_include:iterate=*", "_include:recurse=*", "_include:ITERATE=*", "_include:=*", "_include.=*", "_include:foo=*",
    "%5Finclude=*", "_inc%00lude=*", "%00_include=*", "%20_include=*", "+_include=*", "_include%20=*", "_include%5B%5D=*",
    "_include[]=*", "_Include=*", "_include%3Aiterate=*", "_include=Observation:performer:Patient", "__include=*",
    "_revinclude=*", "_revinclude=Provenance:target", "_revinclude:iterate=*", "_revinclude%00=*", "_revinclude:=*",
    "_has:Provenance:target:agent=Practitioner/nurse", "_has%00:Provenance:target:agent=Practitioner/nurse",
    "_filter=patient%20eq%20124%20or%20patient%20eq%20123", "_filter=patient%20eq%20124", "_list=123-list",
    "_contained=true", "_contained=both", "_containedType=contained", "_query=foo", "_graph=foo", "_text=heart",
    "_content=heart", "_type=Patient", "_mdm=true", "_cascade=delete", "_expunge=true", "_hardDelete=true",
    "hardDelete=true", "_with=x", "_page=2", "_page_token=x", "sessionID=x", "-pageContext=x", "_typeFilter=x", "_at=2020",
    "_since=2020-01-01", "_getpages=THEIRS", "%5Fgetpages=THEIRS", "_getpages%00=THEIRS", "_getpagesoffset=0", "_offset=30",
    "_bundletype=searchset", "_raw=true", "_method=DELETE", "_outputFormat=x", "_includeIgnoredFields=true", "_foo=bar",
    "_fhirpath=Bundle.entry", "_narrative=x", "_maxresults=1", "_sort=patient.name", "_sort=subject:Patient.name",
    "_sort=-link", "_charset_=utf-7", "subject:missing=true", "focus=Patient/124", "performer=Patient/124",
    "focus.identifier=mrn-124", "foo=bar", "%ZZ=1", "code=%ZZ", "code=%C0%AF", "code=%FF", "near=x",
)  # fmt: skip
CONTROLS = [f"%{code:02x}" for code in (*range(0x21), 0x2E, 0x3A, 0x5B, 0x5D, 0x7F)] + [
    "%C2%80",
    "%C2%85",
    "%C2%AD",
    "%EF%BF%BD",
]

PATHS = (
    "/Patient/124", "/%50atient/124", "/Patient/%31%32%34", "/Patient/123/../124", "/Patient/123/%2e%2e/124",
    "/Patient/123/.%2E/124", "/Patient/123%2F..%2F124", "/Patient/123%5C..%5C124", "/Patient/123/%252e%252e/124",
    "/Patient/123/..;/124", "/./Patient/124", "/Patient/./124", "/Patient;x=1/124", "/Patient/124;x=1", "/Patient/123;/124",
    "/Patient/123;x=/../124", "/Patient%2F124", "/Patient/124%20", "/Patient/124%00", "/Patient/123%00/124",
    "/Patient/123%3F_id=124", "/Patient/123%23", "/Patient/123%7C124", "/Patient/123,124", "/patient/124", "/PATIENT/124",
    "/Patient/123/124", "/Patient/123/Patient/124", "/Patient/123/_history/1/124", "/Patient/Patient/124", "/fhir/Patient/124",
    "//Patient/124", "/Patient//124", "/Patient/124/", "/Patient/124?", "/Patient/124?_summary=true", "/Patient/", "/Patient",
    "/Patient?", "", "/", "/Patient/124/_history", "/Patient/124/_history/1", "/Patient/_history", "/_history",
    "/Patient/123/_history/1/../../../124", "/Observation/5", "/Observation/5?patient=123", "/Observation/5?subject=Patient/123",
    "/Observation/123-laboratory-01", "/Observation/5/_history", "/Observation/5/_history/1", "/Observation/_history", "/Binary/124-letter",
    "/Binary/123-letter", "/Practitioner/doctor", "/Organization", "/Group/all", "/Task/123-task", "/Provenance/124-origin",
    "/DEFAULT/Patient", "/DEFAULT/Patient/123", "/_ALL/Patient", "/_default/Patient", "/DEFAULT/metadata",
    "/Patient,Observation?_id=123", "/with_underscore/123", "/Patient/with_underscore",
    "/http://elsewhere.example/fhir/Patient/124", "/Patient?_id=123,124", "/Patient?_id=123&_id=", "/Patient?_id:not=123",
    "/Patient?_id:missing=false", "/Patient?identifier=mrn-124", "/Patient?link=Patient/123", "/Patient?_id=124&link=Patient/123",
    "/Patient?patient=123", "/Patient?_id=123&identifier=mrn-124", "/Patient?_id=123&_revinclude=*",
    "/Patient?_id=123&_revinclude=Patient:link", "/Patient?_id=123&_has:Patient:link:_id=124", "/Patient?_id=124",
    "/Patient?_id=123&_include=Patient:link", "/Patient?_has:Observation:patient:code=718-7", "/Patient/123?_include=Patient:link",
    "/Patient/123?_id=124", "/Patient/123?patient=124", "/Patient/123?_getpages=THEIRS", "/Patient/123?_revinclude=*",
    "/Appointment?patient=123&_include=Appointment:patient", "/Coverage?beneficiary=Patient/123&_include=Coverage:subscriber",
    "/AllergyIntolerance?recorder=RelatedPerson/123-relative", "/Task?patient=123", "/Task?owner=Patient/124",
    "/Practitioner?patient=123", "/Medication?patient=123", "/Device?patient=123", "/Binary?patient=123", "/Location?patient=123",
    "/Group?member=Patient/123", "/List?patient=123", "/AuditEvent?patient=123", "/Observation/_search?patient=124",
    "/Observation/_search/?patient=124", "/Observation/_SEARCH?patient=123", "/_search?_type=Patient", "/?_type=Patient",
    "/?_type=Patient&_id=123", "/?_type=Observation,Condition&patient=123", "/?_id=123", "/?patient=123",
    "/?_type=Observation&_type[]=Patient", "/?_getpages=THEIRS", "/?_getpages=THEIRS&patient=123", "/?patient=123&_getpages=THEIRS",
    "/?_type=Patient&_getpages=THEIRS", "/_getpages?_getpages=THEIRS", "/Observation?_getpages=THEIRS", "?_getpages=THEIRS",
    "/metadata?_getpages=THEIRS", "/Patient/123/Observation?_getpages=THEIRS", "/Observation?code=718-7",
    "/Observation?_id=5", "/Observation?_id=5&patient=123", "/Observation?patient=123&patient=124", "/Observation?_list=123-list",
    "/Observation?patient=&patient=124", "/Observation?subject=&patient=124", "/Observation?foo=bar", "/Observation?patients=123",
    "/Observation?=124", "/Observation?&&&patient=124", "/Observation?patient=123#&patient=124", "/Observation?patient",
)  # fmt: skip
BELOW = (
    "Observation", "Observation/", "Observation?patient=124", "Observation?subject=Patient/124", "Observation?_include=*",
    "Observation?_id=5", "Observation/5", "*", "Patient", "Patient?_id=124", "Patient/124", "Task", "Group", "Binary", "Unknown",
    "observation", "Provenance", "Observation?_revinclude=Provenance:target", "Practitioner", "Medication",
)  # fmt: skip
OPERATIONS = (
    "/Patient/123/$everything", "/Patient/123/%24everything?_count=5", "/Patient/123/$everything?_type=Observation",
    "/Patient/123/$everything?_id=124&_count=200", "/Patient/123/$everything?patient=124", "/Patient/123/$everything/",
    "/Patient/123/$everything?_getpages=THEIRS", "/Patient/124/$everything", "/Patient/$everything", "/Patient/$everything?_id=124",
    "/Encounter/123-visit-1/$everything", "/Group/all/$everything", "/Patient/123/$EVERYTHING", "/$everything",
    "/Observation/$lastn?patient=124&max=1", "/Observation/$lastn?patient=123&max=1", "/$diff?from=Patient/123&to=Patient/124",
    "/Patient/123/$diff", "/Patient/123/$meta", "/$meta", "/Patient/$meta", "/Patient/124/$meta", "/Patient/123/$validate",
    "/Patient/123/$export", "/$export", "/Group/all/$export", "/Patient/123/$summary", "/Patient/$match", "/Patient/123/$expunge",
    "/$get-resource-counts", "/Composition/x/$document", "/List/123-list/$find", "/DocumentReference/$docref?patient=124",
    "/Binary/124-letter/$binary-access-read?path=Binary", "/Patient/123/$merge", "/$graphql?query=%7BPatient(id:124)%7Bid%7D%7D",
    "/Patient/123/$graphql?query=%7Bid%7D", "/$reindex", "/Patient/123/$unknown",
)  # fmt: skip
READ_HEADERS = (
    {"If-None-Match": 'W/"1"'}, {"Accept": "text/html"}, {"Accept": "*/*", "X-Security-Context": "Patient/123"},
    {"X-HTTP-Method-Override": "DELETE"}, {"X-Original-URL": "/fhir/Patient/124"}, {"X-Rewrite-URL": "/fhir/Patient/124"},
    {"X-Forwarded-Prefix": "/x"}, {"Content-Type": "application/x-www-form-urlencoded"},
)  # fmt: skip


def reads() -> Iterator[Ask]:
    """Yield reads and searches, by GET and by POST."""
    for name, value in product(NAMES, ("124", "Patient/124")):
        yield get(f"/Observation?patient=123&{name}={value}", **LENIENT)
        yield form("/Observation/_search", f"patient=123&{name}={value}", **LENIENT)
        yield get(f"/Observation?{name}={value}", **LENIENT)
    for name in NAMES:
        yield form("/Observation/_search?patient=123", f"{name}=124")
        yield form("/Observation/_search", f"{name}=123")
        yield get(f"/Observation?{name}=123", **LENIENT)
    for value in VALUES:
        yield get(f"/Observation?_summary=count&patient={value}")
        yield get(f"/Observation?_count=3&subject={value}")
        yield form("/Observation/_search", f"patient={value}")
        yield get(f"/Observation?patient=123&patient={value}")
        yield get(f"/Patient?_id={value}")
    for wider in WIDER:
        yield get(f"/Observation?patient=123&_count=50&{wider}")
        yield form("/Observation/_search", f"patient=123&_count=50&{wider}")
        yield form("/Observation/_search?patient=123&_count=50", wider)
        yield get(f"/Patient/123?{wider}")
        yield get(f"/Patient?_id=123&{wider}")
    for control in CONTROLS:
        yield get(f"/Observation?_id=123-told-by-124&patient=123&_include{control}=Observation:performer", **LENIENT)
        yield form("/Observation/_search", f"patient=123&_include{control}=Observation:performer", **LENIENT)
        yield form("/Observation/_search?patient=123", f"{control}_include=*", **LENIENT)
        yield form("/Observation/_search?patient=123", f"_{control}include=*", **LENIENT)
    yield from map(get, (*PATHS, *OPERATIONS))
    for below, method in product(BELOW, ("GET", "DELETE", "POST")):
        yield Ask(method, f"/Patient/123/{below}")
    yield from (
        get(f"/{place}/Observation") for place in ("Patient/124", "Patient/999", "Encounter/123-visit-1", "Group/all")
    )
    yield from (get(f"/Patient/{ids}/Observation") for ids in ("123,124", "123%2C124", "123%7C124", "123%20"))
    for headers, target in product(READ_HEADERS, ("/Patient/123", "/Patient/124", "/Observation?patient=123&_count=1")):
        yield Ask("GET", target, headers)
    for how, target in product(
        ("xml", "html", "ttl", "html/json", "foo"), ("/Patient/123", "/Observation?patient=123&_count=2")
    ):
        yield get(f"{target}{'&' if '?' in target else '?'}_format={how}")
    yield from forms()
    yield from combined()


def combined() -> Iterator[Ask]:
    """Yield searches of several such parameters, the same at each run."""
    chance = Random(4)  # noqa: S311 no secret
    pool = [f"{name}={value}" for name in NAMES for value in ("123", "124")]
    pool += [f"{name}={value}" for name in ("patient", "subject", "performer", "_id") for value in VALUES]
    for _ in range(150):
        chosen = ["patient=123", *chance.sample([*pool, *WIDER], chance.choice((1, 2, 3)))]
        chance.shuffle(chosen)
        yield get(f"/Observation?{'&'.join(chosen)}", **LENIENT)
        yield form(f"/Observation/_search?{chosen[0]}", "&".join(chosen[1:]), **LENIENT)


def filters() -> Iterator[Ask]:
    """Yield what is asked with a scope for laboratory results alone."""
    more = (
        "category=vital-signs", "category=", "category", "category=laboratory,vital-signs", "category:not=laboratory",
        "category:missing=false", "CATEGORY=vital-signs", "%20category=vital-signs", "category%5B%5D=vital-signs",
        "category%00=vital-signs", "category=%00", "category=laboratory%2Cvital-signs", "category=,", "category=laboratory|",
        "category=|laboratory", "category=Laboratory", "category:text=signs", "_include=*", "code=8867-4", "category=laboratory",
    )  # fmt: skip
    for one in more:
        yield get(f"/Observation?patient=123&{one}")
        yield get(f"/Observation?patient=123&category=laboratory&{one}")
        yield get(f"/Observation?patient=123&{one}&category=laboratory", **LENIENT)
        yield form("/Observation/_search", f"patient=123&category=laboratory&{one}", **LENIENT)
        yield form("/Observation/_search?patient=123&category=laboratory", one)
    yield from map(
        get, ("/Observation/123-vital-signs-01", "/Observation/123-laboratory-01", "/Observation?patient=123")
    )


def forms() -> Iterator[Ask]:
    """Yield searches by POST whose body one reader takes for a form and another does not."""
    kinds = (
        "application/x-www-form-urlencoded; charset=UTF-16", "application/x-www-form-urlencoded; charset=ibm037",
        "Application/X-WWW-Form-Urlencoded", "application/x-www-form-urlencoded, text/plain", "text/plain", "application/fhir+json",
        "application/x-www-form-urlencoded; charset=utf-8", "multipart/form-data; boundary=b", "application/x-www-form-urlencoded;",
    )  # fmt: skip
    for kind, body in product(kinds, ("patient=124", "_include=*", "patient=123&_include=*", "--b\r\n\r\npatient=124")):
        yield Ask("POST", "/Observation/_search?patient=123&_count=50", {"Content-Type": kind}, body)
    for coding in ("deflate", "gzip", "identity", "br"):
        yield form("/Observation/_search", "patient=123&_count=50", Content_Encoding=coding)
    for target in ("/Observation/_search/", "/Patient/123/Observation/_search", "/_search", "/", "/Observation"):
        for body in ("patient=124", "_getpages=THEIRS", "patient=123&_getpages=THEIRS", "_type=Patient&_id=123"):
            yield form(target, body)
    yield Ask("POST", "/Observation/_search?patient=123")
    yield Ask("POST", "/Observation/_search", {}, "patient=123")
    yield Ask("POST", "/?_getpages=THEIRS")
    yield form("/Observation/_search?patient=123", "_method=DELETE")
    yield form("/Observation/_search?patient=123", "code=718-7", X_HTTP_Method_Override="GET")
    yield form("/Observation/_search", "patient=123\n&_include=*")
    yield form("/Observation/_search", "patient=123&_include=*&x=\xff")
    yield Ask(
        "PUT", "/Observation/_search?patient=123", {"Content-Type": "application/x-www-form-urlencoded"}, "patient=124"
    )


HIS = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"text": "written"},
    "subject": {"reference": "Patient/123"},
}
THEIRS = HIS | {"subject": {"reference": "Patient/124"}}
RENAMED = {"resourceType": "Patient", "id": "123", "active": True, "gender": "unknown"}
STATUS = '[{"op": "replace", "path": "/status", "value": "amended"}]'
GENDER = '[{"op": "replace", "path": "/gender", "value": "other"}]'
PATCH = "application/json-patch+json"
CASCADES = (
    "",
    "?_cascade=delete",
    "?hardDelete=true",
    "?_expunge=true",
    "?_cascade%00=delete",
    "?_Cascade=delete",
    "?%5Fcascade=delete",
)


def writes() -> Iterator[Ask]:
    """Yield what changes something, or may."""
    for target, query in product(
        ("/Patient/124", "/Patient/123", "/Observation/5", "/Observation/123-laboratory-01", "/Medication/metformin"),
        CASCADES,
    ):
        yield write("DELETE", f"{target}{query}")
    for cascade in ("delete", "delete; max-rounds=1", "none", "DELETE"):
        yield write("DELETE", "/Patient/123", X_Cascade=cascade)
        yield write("DELETE", "/Encounter/124-visit-1", X_Cascade=cascade)
    for query in (
        "?_id=5",
        "?patient=123",
        "?patient=124",
        "?",
        "",
        "?_id=123",
        "?identifier=mrn-124",
        "?patient=123&_id=5",
    ):
        for kind in ("Observation", "Patient"):
            yield write("DELETE", f"/{kind}{query}")
            yield write("PUT", f"/{kind}{query}", HIS if kind == "Observation" else RENAMED)
            yield write("PATCH", f"/{kind}{query}", STATUS if kind == "Observation" else GENDER, Content_Type=PATCH)
    for exists in ("_id=5", "patient=124", "identifier=urn:x|1", "identifier=mrn-125", ""):
        yield write("POST", "/Observation", HIS, If_None_Exist=exists)
        yield write("POST", "/Patient", {"resourceType": "Patient"}, If_None_Exist=exists)
        yield write("POST", "/Observation", HIS, If_None_Exist=exists, Prefer="return=minimal")
        yield write("PUT", "/Patient/123", RENAMED, If_None_Exist=exists)
    for resource in (
        HIS,
        THEIRS,
        HIS | {"id": "chosen"},
        HIS | {"subject": {"reference": "Patient?identifier=mrn-124"}},
    ):
        yield write("POST", "/Observation", resource)
        yield write("POST", "/Observation?patient=123", resource)
        yield write("POST", "/Patient/123/Observation", resource)
        yield write("PUT", "/Observation/5", resource | {"id": "5"})
        yield write("PUT", "/Observation/5?patient=123", resource | {"id": "5"})
        yield write("PUT", "/Observation/123-laboratory-01", resource | {"id": "123-laboratory-01"})
    for kind in ("Patient", "Organization", "Practitioner", "ValueSet", "Group", "Task"):
        yield write("POST", f"/{kind}", {"resourceType": kind})
        yield write("PUT", f"/{kind}/7", {"resourceType": kind, "id": "7"})
        yield write("DELETE", f"/{kind}/7")
    yield write("PUT", "/Patient/123", RENAMED | {"id": "124"})
    yield write("PUT", "/Patient/123", RENAMED | {"link": [{"other": {"reference": "Patient/124"}, "type": "seealso"}]})
    yield write("PUT", "/Patient/123", HIS | {"id": "123"})
    yield write("PUT", "/Patient/123", RENAMED, If_Match='W/"99"')
    yield write("PUT", "/Patient/123?_id=124", RENAMED)
    yield write("PUT", "/Patient/123", RENAMED)
    yield write("PATCH", "/Patient/123", GENDER, Content_Type=PATCH)
    yield write("PATCH", "/Patient/123?_id=124", GENDER, Content_Type=PATCH)
    yield write("PATCH", "/Patient/123", '[{"op": "replace", "path": "/id", "value": "124"}]', Content_Type=PATCH)
    yield write("PATCH", "/Patient/124", GENDER, Content_Type=PATCH)
    yield write("POST", "/Patient/123", HIS)
    yield from (write("POST", target, {"resourceType": "Parameters"}) for target in OPERATIONS)
    yield from bundles()


def bundles() -> Iterator[Ask]:
    take_over = {"request": {"method": "PUT", "url": "Observation?_id=5"}, "resource": HIS}
    for kind, entry in product(
        ("batch", "transaction", "collection"), ({"request": {"method": "GET", "url": "Patient/124"}}, take_over)
    ):
        bundle = {"resourceType": "Bundle", "type": kind, "entry": [entry]}
        yield from (
            write("POST", target, bundle)
            for target in ("", "/", "/?patient=123", "/Bundle", "/Patient/123", "/DEFAULT")
        )
        yield write("PUT", "/", bundle)
