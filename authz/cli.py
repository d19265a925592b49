"""The `clientpolicy` command."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

USAGE_ERROR = 2


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code; what is wrong is told in one line each, never by a traceback."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return USAGE_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clientpolicy", description="External authorization for health APIs.")
    parser.add_argument("--version", action="version", version=version("clientpolicy"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the authorization service")
    serve.add_argument("--config", type=Path, required=True, metavar="FILE")
    serve.set_defaults(run=_serve)

    told = "turn ClientPolicies of a cluster into certificates and quotas"
    more = "by KUBECONFIG, the pod's service account or ~/.kube/config; keys and defaults: examples/operator.yaml"
    operator = commands.add_parser("operator", help=told, description=f"{told}, {more}")
    operator.add_argument("--config", type=Path, metavar="FILE", help="without one: defaults and CLIENTPOLICY_...")
    operator.set_defaults(run=_operator)

    check = commands.add_parser("check", help="decide recorded CheckRequests without a server")
    check.add_argument("--config", type=Path, required=True, metavar="FILE")
    check.add_argument("--at", type=_instant, metavar="RFC3339", help="decide as of this instant (default: now)")
    check.add_argument("requests", nargs="+", metavar="REQUEST", help="a file of CheckRequests in JSON, or -")
    check.set_defaults(run=_check)

    lint = commands.add_parser("lint", help="show every error in ClientPolicy manifests")
    lint.add_argument(
        "--config", type=Path, metavar="FILE", help="of authz: what it opens, and manifests as it meets them"
    )
    lint.add_argument("--output", choices=("text", "json"), default="text", help="json: one object, for programs")
    lint.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="files, folders, - (default: the policies of FILE)"
    )
    lint.set_defaults(run=_lint)

    told = "look at configurations before anything starts with them"
    more = "every mistake with its key, and what opens more than it seems; the files that they name are not read"
    config = commands.add_parser("config", help=told, description=f"{told}: {more}")
    config.add_argument("action", choices=("check",))
    config.add_argument("--config", type=Path, metavar="FILE", help="of authz; CLIENTPOLICY_... lies over it")
    config.add_argument("--operator", type=Path, metavar="FILE", help="of the operator; with both: do they agree?")
    config.set_defaults(run=_config)

    crd = commands.add_parser("crd", help="print the CustomResourceDefinition of ClientPolicy")
    crd.set_defaults(run=_crd)

    quota = commands.add_parser("quota", help="show or reset what a client has used of its quotas")
    quota.add_argument("action", choices=("show", "reset"))
    quota.add_argument("client", metavar="CLIENT", help="a client id, namespace/name of its policy, or address:IP")
    quota.add_argument("--config", type=Path, required=True, metavar="FILE")
    quota.add_argument("--json", action="store_true", help="JSON instead of a table")
    quota.set_defaults(run=_quota)

    _add_manage(commands)

    demo = commands.add_parser("demo", help="the whole path on this machine: Envoy, mTLS, OAuth, FHIR, this service")
    demo.add_argument("--json", action="store_true", help="one JSON line a step instead of the table")
    demo.add_argument("--keep", action="store_true", help="leave it running and print curl lines to paste")
    demo.add_argument("--redis", metavar="URL", help="keep quotas in this Redis instead of memory")
    demo.add_argument("--port", type=int, default=0, metavar="N", help="Envoy's port (default: any free one)")
    demo.set_defaults(run=_demo)
    return parser


def _add_manage(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for action, told in (
        ("status", "show how a policy of a cluster stands; exit code 1 where it is not ready"),
        ("renew", "ask for another certificate of a policy, beside the one that is"),
    ):
        manage = commands.add_parser(action, help=told, description=told)
        manage.add_argument("name", metavar="NAME", help="of the ClientPolicy")
        manage.add_argument("-n", "--namespace", default="default", metavar="NAMESPACE")
        manage.set_defaults(run=_manage, action=action)


def _instant(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an instant such as 2026-11-01T12:00:00Z, not `{text}`") from None
    if instant.tzinfo is None:
        raise argparse.ArgumentTypeError(f"`{text}` names no time zone; end it in Z or an offset")
    since = instant.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


# gRPC 1.85 listens through its new event engine. With the poller it always had, a call takes a tenth less CPU, measured
# side by side with `make bench` (1.45 instead of 1.6 times an empty server). Read when grpc is first loaded.
GRPC_EXPERIMENTS = "-event_engine_listener"


def _outlive_hangup() -> None:
    """Ignore SIGHUP, which ends a process by default, and asks ours to reopen its files at most."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _serve(parsed: argparse.Namespace) -> int:
    _outlive_hangup()
    os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)
    from authz.edge.overrides import Misconfigured  # noqa: PLC0415 each command loads what it needs, and no more
    from authz.serve import serve  # noqa: PLC0415

    try:
        return serve(parsed.config)
    except Misconfigured as wrong:
        return _complain(wrong.mistakes)


def _operator(parsed: argparse.Namespace) -> int:
    _outlive_hangup()
    try:
        from authz.edge.kubernetes.connect import NoCluster  # noqa: PLC0415
        from authz.edge.overrides import Misconfigured  # noqa: PLC0415
        from authz.operate import operate  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        return _complain((f"the operator needs {missing.name}: install clientpolicy[operator]",))
    try:
        return operate(parsed.config)
    except Misconfigured as wrong:
        return _complain(wrong.mistakes)
    except NoCluster as nowhere:
        return _complain((str(nowhere),))


def _check(parsed: argparse.Namespace) -> int:
    from authz.check import BadRequests, check, read_requests  # noqa: PLC0415
    from authz.edge import clock  # noqa: PLC0415
    from authz.edge.overrides import Misconfigured  # noqa: PLC0415
    from authz.edge.source import NoPolicies  # noqa: PLC0415
    from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest  # noqa: PLC0415

    try:
        requests: list[CheckRequest] = []
        for name in parsed.requests:
            if name == "-":
                requests.extend(read_requests("-", sys.stdin))
            else:
                with Path(name).open(encoding="utf-8") as stream:
                    requests.extend(read_requests(name, stream))
        now_us = parsed.at if parsed.at is not None else clock.now_us()
        lines = check(parsed.config, tuple(requests), now_us)
    except Misconfigured as wrong:
        return _complain(wrong.mistakes)
    except (BadRequests, NoPolicies) as wrong:
        return _complain((str(wrong),))
    except OSError as failed:
        return _complain((f"{failed.filename}: {failed.strerror}",))
    for line in lines:
        print(json.dumps(line))
    return 0 if all(line["verdict"] == "allow" for line in lines) else 1


def _lint(parsed: argparse.Namespace) -> int:
    from authz.edge.overrides import Misconfigured  # noqa: PLC0415
    from authz.lint import lint, lint_with  # noqa: PLC0415

    paths, config = tuple(parsed.paths), parsed.config
    if not paths and config is None:
        return _complain(("expected a PATH of manifests, or --config FILE",))
    try:
        findings = lint(paths) if config is None else lint_with(config, os.environ, paths)
    except Misconfigured as wrong:
        return _complain(wrong.mistakes)
    except OSError as failed:
        return _complain((f"{failed.filename}: {failed.strerror}",))
    if paths and not findings.errors and not findings.policies:
        return _complain((f"no ClientPolicy manifest in {', '.join(map(str, paths))}",))
    if parsed.output == "json":
        counts = {"policies": findings.policies, "errors": len(findings.errors)}
        print(json.dumps(counts | {"findings": [one.plain() for one in findings.found]}))
    else:
        print("\n".join((*findings.errors, *findings.notes, findings.summary)))
    return 1 if findings.errors else 0


def _config(parsed: argparse.Namespace) -> int:
    from authz.configurations import judge  # noqa: PLC0415

    given = [path for path in (parsed.config, parsed.operator) if path is not None]
    if not given:
        return _complain(("expected --config FILE, --operator FILE, or both",))
    try:
        for path in given:
            path.open().close()
    except OSError as failed:
        return _complain((f"{failed.filename}: {failed.strerror}",))
    judged = judge(parsed.config, parsed.operator, os.environ)
    for line in (*judged.mistakes, *judged.cautions):
        print(line)
    if judged.mistakes:
        return 1
    print(f"{', '.join(map(str, given))}: no mistake")
    return 0


def _crd(_: argparse.Namespace) -> int:
    from authz.policy.crd import crd  # noqa: PLC0415

    print(crd(), end="")
    return 0


def _quota(parsed: argparse.Namespace) -> int:
    from authz.counters import Subject, Unavailable, seen_within, table  # noqa: PLC0415
    from authz.edge.overrides import Misconfigured  # noqa: PLC0415
    from authz.edge.source import NoPolicies  # noqa: PLC0415

    try:
        subject = Subject(parsed.config, parsed.client)
        if parsed.action == "show":
            entries = subject.show()
            lines = [json.dumps({"client": subject.name, "quotas": entries})] if parsed.json else table(entries)
        else:
            counted = subject.reset()
            told = (
                f"{subject.name}: {'cleared' if counted else 'nothing was counted'}; replicas see it in {seen_within()}"
            )
            lines = [json.dumps({"client": subject.name, "cleared": counted})] if parsed.json else [told]
    except Misconfigured as wrong:
        return _complain(wrong.mistakes)
    except (Unavailable, NoPolicies) as wrong:
        return _complain((str(wrong),))
    except LookupError as unknown:
        _complain((str(unknown.args[0]),))
        return 1
    except OSError as failed:
        return _complain((f"{failed.filename}: {failed.strerror}",))
    for line in lines:
        print(line)
    return 0


def _manage(parsed: argparse.Namespace) -> int:
    try:
        from authz.manage import Unanswered, manage  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        return _complain((f"{parsed.action} needs {missing.name}: install clientpolicy[operator]",))
    try:
        is_good, lines = manage(parsed.action, parsed.namespace, parsed.name)
    except Unanswered as wrong:
        return _complain((str(wrong),))
    print("\n".join(lines))
    return 0 if is_good else 1


def _demo(parsed: argparse.Namespace) -> int:
    try:
        from authz.demo.command import main as run  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        return _complain((f"the demo needs {missing.name}: install clientpolicy[demo]",))
    return run(parsed)


def _complain(mistakes: tuple[str, ...]) -> int:
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    return USAGE_ERROR
