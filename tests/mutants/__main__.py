"""`make mutants`: changes one thing of the code that decides, and demands that a test of the module notices.

Exit status 1: a survivor that explained.toml does not explain, an explanation whose mutant is gone or is noticed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from mutants.explained import FILE, Name, explained, vanished
from mutants.mutations import Mutant, mutants_of
from mutants.trial import survivors

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = ("authz/core", "authz/wire", "authz/policy")
GENERATED: Final = ("authz/policy/fhir_r4.py",)  # a test makes it again and compares
SEED: Final = "clientpolicy"
# A module's tests are those of its name and the service's; these have others.
SERVICE: Final = "tests/test_service.py"
SMALL: Final = "tests/core/test_small.py"
SCOPES: Final = "tests/core/test_scope_authorization.py"
GRAMMARS: Final = "tests/core/test_grammars.py"
DOCUMENT: Final = "tests/policy/test_document.py"
OTHER_TESTS: Final = {
    "authz/core/address.py": [SMALL],
    "authz/core/bearer.py": [GRAMMARS, SERVICE],
    "authz/core/brakes.py": [SERVICE],
    "authz/core/cache.py": [],
    "authz/core/certificate.py": ["tests/core/test_hops.py", SERVICE],
    "authz/core/compartment.py": [SCOPES, "tests/core/test_grant.py"],
    "authz/core/control_parameters.py": [],
    "authz/core/decide.py": [SMALL, SERVICE, "tests/wire/test_response.py"],
    "authz/core/forwarded.py": [GRAMMARS, "tests/core/test_hops.py"],
    "authz/core/grant.py": [SCOPES, SERVICE],
    "authz/core/hops.py": ["tests/core/test_certificate.py"],
    "authz/core/interaction.py": [SCOPES, "tests/core/test_grant.py"],
    "authz/core/jwks.py": ["tests/core/test_bearer.py", SERVICE],
    "authz/core/path.py": [GRAMMARS, "tests/core/test_grant.py"],
    "authz/core/plain.py": [GRAMMARS, "tests/core/test_path.py", SERVICE],
    "authz/core/public.py": [SMALL, SERVICE],
    "authz/core/quota.py": ["tests/core/test_window_edge.py"],
    "authz/core/reasons.py": ["tests/wire/test_response.py"],
    "authz/core/roster.py": [SMALL, SERVICE],
    "authz/core/search.py": [GRAMMARS, SCOPES, "tests/core/test_interaction.py", "tests/core/test_grant.py"],
    "authz/policy/__init__.py": ["tests/policy/test_parse.py", DOCUMENT],
    "authz/policy/claims.py": [DOCUMENT],
    "authz/policy/crd.py": [DOCUMENT],
    "authz/policy/document.py": ["tests/policy/test_bounds.py"],
    "authz/policy/duration.py": [],
    "authz/policy/fields.py": [DOCUMENT],
    "authz/policy/limits.py": [],
    "authz/policy/smart.py": [],
    "authz/wire/ratelimit.py": ["tests/wire/test_response.py"],
    "authz/wire/request.py": [SERVICE],
    "authz/wire/response.py": [SERVICE],
}


def modules() -> list[str]:
    """Return the modules to mutate, as paths from the root."""
    found = [str(path.relative_to(ROOT)) for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.py"))]
    return [module for module in found if module not in GENERATED]


def files_for(module: str) -> list[str]:
    """Return the test files of a module."""
    path = Path(module)
    own = f"tests/{path.parts[1]}/test_{path.stem}.py"
    return [*([own] if (ROOT / own).exists() else []), *OTHER_TESTS.get(module, [SERVICE])]


def sample(mutants: list[Mutant], count: int, seed: str) -> list[Mutant]:
    """Return that many mutants, the same ones for the same code: an edit exchanges only what it touches."""
    return sorted(mutants, key=lambda mutant: _rank(mutant, seed))[:count]


def _rank(mutant: Mutant, seed: str) -> str:
    return hashlib.sha256(json.dumps([seed, *mutant.name]).encode()).hexdigest()


def trials(chosen: list[Mutant], known: set[Name], jobs: int) -> list[Mutant]:
    """Return the survivors; a process per module, so many at once, which tells those not known when it is done."""
    by_module: dict[str, list[Mutant]] = {}
    for mutant in chosen:
        by_module.setdefault(mutant.module, []).append(mutant)
    longest_first = sorted(by_module.items(), key=lambda item: -len(item[1]))
    found: list[Mutant] = []
    with get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:
        for module, survived, took_s in pool.imap_unordered(_trial, longest_first):
            unexplained = [mutant for mutant in survived if mutant.name not in known]
            print(
                f"{module}: {len(by_module[module])} mutants, {len(unexplained)} survived, {took_s:.0f} s", flush=True
            )
            print(end=told(unexplained), flush=True)
            found += survived
    return found


def _trial(work: tuple[str, list[Mutant]]) -> tuple[str, list[Mutant], float]:
    module, mutants = work
    started = time.monotonic()
    return module, survivors(ROOT, module, files_for(module), mutants), time.monotonic() - started


def told(mutants: Sequence[Mutant]) -> str:
    """Return survivors as entries of explained.toml that lack their reason."""
    afters: dict[tuple[str, str, str], list[str]] = {}
    for mutant in mutants:
        afters.setdefault((mutant.module, mutant.function, mutant.before), []).append(mutant.after)
    return "".join(
        f"\n[[mutant]]\nmodule = {_toml(module)}\nfunction = {_toml(function)}\nbefore = {_toml(before)}\n"
        f'after = [\n{_listed(changed)}]\nwhy = ""\n'
        for (module, function, before), changed in afters.items()
    )


def _listed(texts: list[str]) -> str:
    return "".join(f"    {_toml(text)},\n" for text in texts)


def _toml(text: str) -> str:
    if '"' not in text and "\\" not in text and "\n" not in text:
        return f'"{text}"'
    return json.dumps(text, ensure_ascii=False) if "'''" in text or text[-1:] == "'" else f"'''{text}'''"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="path from the root; all where none is named")
    parser.add_argument("--sample", type=int, metavar="COUNT", help="run only so many, the same ones for the same code")
    parser.add_argument("--seed", default=SEED, help="which ones those are")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="modules at once")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    every = [mutant for module in options.modules or modules() for mutant in mutants_of(ROOT, module)]
    known = {name for name in explained(FILE.read_text()) if not options.modules or name[0] in options.modules}
    gone = vanished(known, every)
    if options.sample is None:
        chosen = every
    else:
        chosen = sample([mutant for mutant in every if mutant.name not in known], options.sample, options.seed)
        print(f"a sample of {len(chosen)} with the seed {options.seed}")
    survived = trials(chosen, known, options.jobs)
    names = {mutant.name for mutant in survived}
    noticed = [mutant for mutant in chosen if mutant.name in known - names]
    unexplained = len(names - known)
    if noticed:
        print(f"Explained in explained.toml, and a test notices them; take the explanation away:\n{told(noticed)}")
    if gone:
        print("Explained in explained.toml, and no longer there:", *gone, sep="\n")
    if unexplained:
        print("No test notices those above: write one, simplify the code, or explain them in explained.toml.")
    print(f"{len(every)} mutants, {len(chosen)} run, {unexplained} survived, {time.monotonic() - started:.0f} s")
    return 1 if unexplained or noticed or gone else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
