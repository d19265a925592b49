"""A HAPI FHIR server with three patients' records, by the kit that lies beside the checkout or that FHIR_KIT names."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from fhir.asking import Ask, Came

KIT = Path(os.environ.get("FHIR_KIT") or Path(__file__).parents[3] / "shared" / "fhir-server")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clientpolicy-tests" / "fhir-server"
PROGRAMS = ("java", "javac", "jar", "mvn", "flock")
# What a platform may have switched on: the more the server does, the more of it has to be refused.
FEATURES = "cascade,prefer,contained,multidelete"
TIMEOUT_S = 60.0


def require() -> None:
    """Skip the test by name where the server cannot be had."""
    if not (KIT / "up").exists():
        pytest.skip("no kit of a FHIR server beside the checkout, and FHIR_KIT names none")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed, which the FHIR server needs; see tests/programs")


@cache
def resources() -> dict[str, dict[str, Any]]:
    """Return what the kit loads, by `Type/id`."""
    bundles = [json.loads(file.read_text()) for file in sorted((KIT / "data").glob("*.json"))]
    loaded = [entry["resource"] for bundle in bundles for entry in bundle["entry"]]
    return {f"{one['resourceType']}/{one['id']}": one for one in loaded}


class FhirServer:
    """Runs from `with` to its end, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._environment = os.environ | {"FHIR_RUN": str(folder), "FHIR_CACHE": str(CACHE)}
        self._place = ("", 0)
        self._url = ""

    def __enter__(self) -> Self:
        CACHE.mkdir(parents=True, exist_ok=True)
        self._url = self._kit("up", "--with", FEATURES)
        place = urlsplit(self._url)
        self._place = str(place.hostname), int(place.port or 0)
        try:
            self.load()
        except subprocess.CalledProcessError:
            self._kit("down")
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._kit("down")

    def load(self) -> None:
        """Put the records back to what the kit has; what else was created stays."""
        self._kit("load", self._url)

    def _kit(self, program: str, *arguments: str) -> str:
        run = subprocess.run(
            [KIT / program, *arguments], env=self._environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return run.stdout.strip()

    def send(self, ask: Ask) -> Came:
        """Send the request byte by byte as it is written, and return what came."""
        with socket.create_connection(self._place, timeout=TIMEOUT_S) as plain:
            plain.sendall(ask.bytes_to(f"{self._place[0]}:{self._place[1]}"))
            answer = http.client.HTTPResponse(plain, method=ask.method)
            answer.begin()
            return Came(answer.status, answer.headers.get_content_type(), answer.read().decode("utf-8", "replace"))

    def page_of(self, patient: str) -> str:
        """Return the id of a page of a patient's search: a bearer of it reads that page."""
        came = self.send(Ask("GET", f"/Observation?patient={patient}&_count=5"))
        (following,) = (link["url"] for link in json.loads(came.text)["link"] if link["relation"] == "next")
        return str(following.partition("_getpages=")[2].partition("&")[0])

    def history(self) -> dict[str, dict[str, Any]]:
        """Return the latest 50 versions of anything, by `Type/id/_history/version`; a deleted one has no resource."""
        came = self.send(Ask("GET", "/_history?_count=50", {"Cache-Control": "no-cache"}))
        return {entry["request"]["url"]: entry.get("resource", {}) for entry in json.loads(came.text)["entry"]}
