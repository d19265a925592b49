"""Routes that need no token: exact method and path, or any path below one that ends in `/*`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicRoutes:
    exact: frozenset[tuple[str, str]] = frozenset()  # method, path
    below: tuple[tuple[str, str], ...] = ()  # method, path up to and with the last slash

    def match(self, method: str, path: str) -> str | None:
        """Return the rule that opens this request, None if it is not public."""
        if (method, path) in self.exact:
            return f"{method} {path}"
        for allowed, prefix in self.below:
            if method == allowed and path.startswith(prefix) and len(path) > len(prefix):
                return f"{allowed} {prefix}*"
        return None

    def covering(self, path: str, *, is_prefix: bool) -> Iterator[tuple[str, str]]:
        """Yield the rules, as method and path, that open a path to everyone; of a prefix, all that is below it."""
        if not is_prefix:
            yield from sorted(rule for rule in self.exact if rule[1] == path)
        for method, prefix in self.below:
            if path.startswith(prefix) and (is_prefix or len(path) > len(prefix)):
                yield method, f"{prefix}*"
