"""One module's mutants, each against the module's tests, in a forked process that nothing outlives.

A process per module loads whatever does not depend on the module, and pytest; a fork of it loads the mutant and what
depends on it, and runs the tests until one fails. So a mutant costs no start of Python, and leaves no trace.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Final, TypeVar

import grimp
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import Phase, settings
from mutants.mutations import Mutant

_Told = TypeVar("_Told")
_Order = dict[str, tuple[int, float]]  # of a test: how often it has failed, negative, and how long it takes
_generate = rsa.generate_private_key
_ROOTS: Final = ("authz", "clientpolicy_operator")
LEAST_S: Final = 10  # of CPU, beside five times what the tests take without a mutant; a busy machine ends nothing
_WAITS_S: Final = 600  # of the clock: for a mutant that waits for what never comes

# The same examples each time, none remembered, and no search for a smaller one: what fails is enough.
settings.register_profile(
    "mutants", deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
)


def survivors(root: Path, module: str, tests: list[str], mutants: list[Mutant], least_s: int = LEAST_S) -> list[Mutant]:
    """Return the mutants that no test of the module's notices; what it loads stays loaded, so a process is for one module.

    Raises:
        RuntimeError: the tests fail without a mutant, or the module is loaded, so that no mutant would be.
    """
    if _dotted(module) in sys.modules:
        raise RuntimeError(f"{module} is loaded already")
    durations, loaded, keys = _in_fork(lambda: _first_run(tests))
    _load_others(root, module, loaded)
    rsa.generate_private_key = _Keys(keys)
    order = {test: (0, took_s) for test, took_s in durations.items()}
    before_s = _children_s()
    unchanged = Mutant(module=module, function="", before="", after="", source=(root / module).read_text())
    if not tests or not _passes(root, unchanged, tests, order, _WAITS_S):
        raise RuntimeError(f"the tests of {module} fail without a mutant, or there are none: {' '.join(tests)}")
    limit_s = least_s + 5 * int(_children_s() - before_s)
    return [mutant for mutant in mutants if _passes(root, mutant, tests, order, limit_s)]


def _passes(root: Path, mutant: Mutant, tests: list[str], order: _Order, limit_s: int) -> bool:
    """Return whether the tests pass with the mutant; those that take more CPU than the limit do not.

    What fails with one mutant often fails with the next, so it is put first.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.setitimer(signal.ITIMER_PROF, limit_s)  # its signal ends the process
        signal.alarm(_WAITS_S)
        sys.meta_path.insert(0, _Instead(root, mutant))
        gc.disable()  # the process ends before it would pay
        try:
            _run_tests(tests, _UntilOneFails(order, writing))
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as failed:
        test = failed.read()
    if test in order:
        order[test] = (order[test][0] - 1, order[test][1])
    return os.waitpid(pid, 0)[1] == 0


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Instead:
    """Finds a mutant in its module's place."""

    def __init__(self, root: Path, mutant: Mutant) -> None:
        self._name, self._path, self._mutant = _dotted(mutant.module), str(root / mutant.module), mutant

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002 the protocol's
        if name != self._name:
            return None
        return spec_from_file_location(name, self._path, loader=_Loader(name, self._path, self._mutant.source))


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType | None:  # noqa: ARG002 the protocol's
        return compile(self._source, self.path, "exec", dont_inherit=True)


class _Clock:
    """Tells how long each test takes."""

    def __init__(self) -> None:
        self.durations: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.durations[report.nodeid] = self.durations.get(report.nodeid, 0.0) + report.duration


class _UntilOneFails:
    """Runs tests in an order, and ends the process with the first that fails, which it names, or after the last."""

    def __init__(self, order: _Order, failed: int) -> None:
        self._order, self._failed = order, failed

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self._order.get(item.nodeid, (0, 0.0)))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            os._exit(1)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os.write(self._failed, report.nodeid.encode())
            os._exit(1)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        os._exit(exitstatus)


class _Keys:
    """Makes RSA keys ahead, for all that a process forks, since one takes as long as many tests."""

    def __init__(self, sizes: list[int]) -> None:
        self._made = [(size, _generate(65537, size)) for size in sizes]
        self.asked: list[int] = []

    def __call__(self, public_exponent: int, key_size: int, backend: object = None) -> rsa.RSAPrivateKey:  # noqa: ARG002 the function's
        self.asked.append(key_size)
        for place, (size, key) in enumerate(self._made):
            if size == key_size:
                del self._made[place]
                return key
        return _generate(public_exponent, key_size)


def _first_run(tests: list[str]) -> tuple[dict[str, float], list[str], list[int]]:
    """Return how long each test took, which modules are loaded after them, and the sizes of the RSA keys they made."""
    clock = _Clock()
    rsa.generate_private_key = keys = _Keys([])
    _run_tests(tests, clock)
    return clock.durations, list(sys.modules), keys.asked


def _run_tests(tests: list[str], watcher: object) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    options = ["-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutants"]
    # What is loaded already keeps its asserts as they are written; they fail all the same.
    pytest.main([*options, "-W", "ignore::pytest.PytestAssertRewriteWarning", *tests], [watcher])


def _load_others(root: Path, module: str, loaded: list[str]) -> None:
    """Import what the tests import and what does not depend on the module."""
    name = _dotted(module)
    graph = grimp.build_graph(*_ROOTS, cache_dir=None)
    changed = {name, *graph.find_downstream_modules(name)}
    if module.endswith("__init__.py"):
        changed |= graph.find_descendants(name)
    tests = root / "tests"
    for other in loaded:
        if any(parent in changed for parent in _parents(other)) or other in sys.modules:
            continue
        spec = _spec(other)
        if spec is not None and spec.origin is not None and not Path(spec.origin).resolve().is_relative_to(tests):
            importlib.import_module(other)
    if name in sys.modules:
        raise RuntimeError(f"{module} was loaded by what does not depend on it")


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):  # made at run time, or by a parent that is not there
        return None


def _parents(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _dotted(module: str) -> str:
    return module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _in_fork(function: Callable[[], _Told]) -> _Told:
    """Return what a function returns in a fork, so that whatever it loads is forgotten."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as out:
                pickle.dump(function(), out)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as incoming:
        data = incoming.read()
    os.waitpid(pid, 0)
    if not data:
        raise RuntimeError("a process ended without a word")
    return pickle.loads(data)  # type: ignore[no-any-return] # noqa: S301 our own fork's
