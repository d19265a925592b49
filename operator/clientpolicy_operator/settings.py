"""The operator's configuration: nothing in it is required, and every mistake is told at once."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel

from authz.policy.ceilings import Ceiling
from authz.policy.duration import parse_duration
from authz.policy.fields import DurationText, Fingerprint, each_once
from clientpolicy_operator.authority import CRL_LIFE

Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$")]
CA_NAME: Final = "clientpolicy-ca"
TRUST_NAME: Final = "clientpolicy-trust"
LEASE_NAME: Final = "clientpolicy-operator"


DURATION_MAX: Final = timedelta(hours=876_000)  # X.509 ends with the year 9999


def _duration(value: object) -> timedelta:
    if not isinstance(value, str):
        raise ValueError("expected a duration such as 90s, 15m or 24h")  # noqa: TRY004 pydantic collects ValueError
    length_us = parse_duration(value)
    if length_us > DURATION_MAX / timedelta(microseconds=1):
        raise ValueError("expected at most 876000h, a hundred years")
    return timedelta(microseconds=length_us)


def _at_least_a_second(value: timedelta) -> timedelta:
    if value < timedelta(seconds=1):
        raise ValueError("expected at least 1s")
    return value


def _as_written(value: object) -> object:
    """Return the word that a person wrote: YAML reads on and off as booleans."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 the last TCP port
        raise ValueError("expected HOST:PORT (port 0: any free one)")
    return value


Duration = Annotated[timedelta, PlainValidator(_duration, json_schema_input_type=DurationText)]
Interval = Annotated[Duration, AfterValidator(_at_least_a_second)]
Election = Literal["auto", "on", "off"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)


class Listen(_Model):
    ops: Annotated[str, AfterValidator(_address)] = "127.0.0.1:9193"


class Watch(_Model):
    """Which ClientPolicies are this operator's; none named: all in the cluster."""

    namespaces: Annotated[tuple[Namespace, ...], Field(max_length=1000), AfterValidator(each_once)] = ()
    timeout: Interval = timedelta(minutes=5)  # a watch is opened anew that often, so that lost rights show
    silence: Interval = timedelta(seconds=70)  # the API server sends a bookmark about once a minute


class Leader(_Model):
    election: Annotated[Election, BeforeValidator(_as_written, json_schema_input_type=Election | bool)] = (
        "auto"  # auto: in a cluster
    )
    lease: Interval = timedelta(seconds=15)


class Authority(_Model):
    """The built-in CA."""

    life: Duration = timedelta(days=3650)
    renew_before: Duration = timedelta(days=365)
    propagation: Duration = timedelta(minutes=10)  # until every proxy trusts a root that was published
    spread: Duration = timedelta(hours=24)  # over which leaves are re-issued by the new root
    interval: Interval = timedelta(seconds=15)
    crl_refresh: Interval = timedelta(hours=1)
    # Roots whose key nobody can restore, by SHA-256: another CA is made although certificates of theirs are out.
    lost_roots: Annotated[tuple[Fingerprint, ...], Field(max_length=16), AfterValidator(each_once)] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        faults = []
        if not timedelta(hours=2) <= self.life or not self.renew_before < self.life:
            faults.append("life is at least 2h, and longer than renewBefore")
        if not self.propagation + self.spread < self.renew_before:
            faults.append("renewBefore is longer than propagation and spread, or leaves end before they are re-issued")
        if not self.crl_refresh <= CRL_LIFE / 2:
            most = CRL_LIFE / 2 // timedelta(hours=1)
            faults.append(f"crlRefresh is at most {most}h, because a CRL that has ended refuses every client")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class Trust(_Model):
    """Where else than in the operator's namespace ca.crt and ca.crl are published."""

    namespaces: Annotated[tuple[Namespace, ...], Field(max_length=1000), AfterValidator(each_once)] = ()


class Certificates(_Model):
    resync: Interval = timedelta(minutes=10)  # within which each Secret is looked at again
    poll: Interval = timedelta(seconds=15)  # of what cert-manager makes
    workers: Annotated[int, Field(ge=1, le=64)] = 8
    signings_per_second: Annotated[int, Field(ge=1, le=10_000)] = 100


class Settings(_Model):
    namespace: Namespace = "clientpolicy-system"
    listen: Listen = Listen()
    watch: Watch = Watch()
    leader: Leader = Leader()
    authority: Authority = Authority()
    trust: Trust = Trust()
    certificates: Certificates = Certificates()
    ceilings: Annotated[tuple[Ceiling, ...], Field(max_length=256)] = ()


NAMES: Final = {
    name.lower(): name
    for model in (Settings, Listen, Watch, Leader, Authority, Trust, Certificates, Ceiling)
    for name in (field.alias or "" for field in model.model_fields.values())
}
