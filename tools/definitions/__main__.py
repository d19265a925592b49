"""Generate `authz/policy/fhir_r4.py` from HL7's definitions.

Usage: make tables
"""

from __future__ import annotations

import sys
from pathlib import Path

from definitions.hl7 import fetch, read
from definitions.module import render
from definitions.tables import tabulate

MODULE = Path(__file__).parents[2] / "authz" / "policy" / "fhir_r4.py"


def main() -> int:
    MODULE.write_text(render(tabulate(read(fetch()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
