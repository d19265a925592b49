from __future__ import annotations

import importlib
import warnings

# envoy-data-plane's generated classes warn once, on import, of a pydantic form that they still use.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    importlib.import_module("authz.demo.envoy")
