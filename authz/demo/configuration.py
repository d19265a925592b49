"""What authz is told: its configuration, and one ClientPolicy a partner. Read it as an example of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

ISSUER: Final = "demo-auth"
NAMESPACE: Final = "partners"
Quotas = tuple[dict[str, str | int], ...]
GENEROUS: Final[Quotas] = ({"name": "steady", "requests": 1000, "per": "1s", "burst": 1000},)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """A partner application of the demonstration."""

    client_id: str
    scopes: tuple[str, ...]
    quotas: Quotas = GENEROUS

    @property
    def uri(self) -> str:
        return f"spiffe://healthtech.dev/client/{self.client_id}"


PARTNER: Final = Application(
    client_id="trusted-partner-app", scopes=("patient/Patient.read", "patient/Observation.read")
)
OTHER: Final = Application(client_id="other-partner-app", scopes=("patient/Patient.read",))
FLOODER: Final = Application(
    client_id="flooding-app",
    scopes=("system/Patient.read",),
    quotas=({"name": "steady", "requests": 10, "per": "1s", "burst": 20},),
)
APPLICATIONS: Final = (PARTNER, OTHER, FLOODER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """Where authz listens, and whom it believes."""

    grpc_port: int
    ops_port: int
    issuer: str
    audience: str
    store_url: str
    store_prefix: str


def configuration(arrangement: Arrangement, policies: Path) -> str:
    """Return authz's configuration as YAML."""
    return _yaml(
        {
            "listen": {
                "grpc": f"127.0.0.1:{arrangement.grpc_port}",
                "ops": f"127.0.0.1:{arrangement.ops_port}",
            },
            "policies": {"source": "files", "path": str(policies)},
            # Keys are discovered from the issuer; http:// is accepted only because it is this machine.
            "issuers": [
                {
                    "name": ISSUER,
                    "issuer": arrangement.issuer,
                    "audiences": [arrangement.audience],
                    "algorithms": ["ES256"],
                }
            ],
            "store": {"url": arrangement.store_url, "prefix": arrangement.store_prefix},
            # Every malformed request of the walk-through is this one address's.
            "quota": {"anonymous": {"requests": 1000, "per": "1s", "burst": 1000}},
        }
    )


def policy(application: Application, fingerprint: str) -> str:
    """Return the application's ClientPolicy as YAML."""
    return _yaml(
        {
            "apiVersion": "authz.healthtech.dev/v1alpha1",
            "kind": "ClientPolicy",
            "metadata": {"name": application.client_id, "namespace": NAMESPACE},
            "spec": {
                "clientId": application.client_id,
                "certificate": {"source": "External", "fingerprints": [fingerprint]},
                "token": {"issuers": [ISSUER]},
                "scopes": list(application.scopes),
                "quotas": [dict(quota) for quota in application.quotas],
            },
        }
    )


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False)
