"""Great Expectations without the drawing and statistics libraries that a gate never calls.

A gate is a process of its own, and a third of its start is the import of altair and scipy.stats: Great Expectations
imports both for distribution expectations (`suites.SUPPORTED_TYPES` has none). They are put off until first used.
`importlib.util.LazyLoader` does not do it: on Python 3.11 the import statement itself looks at the module and loads it.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

PUT_OFF = ("altair", "scipy.stats")


def put_off_unused() -> None:
    """Let the next import of Great Expectations skip `PUT_OFF`; whoever uses one of them gets the real module."""
    if "great_expectations" in sys.modules:
        return
    for name in PUT_OFF:
        spec = importlib.util.find_spec(name)
        if name in sys.modules or spec is None:
            continue
        placeholder = ModuleType(name)
        placeholder.__spec__ = spec
        placeholder.__getattr__ = _loader_of(name, placeholder)  # type: ignore[method-assign]  # PEP 562
        sys.modules[name] = placeholder


def _loader_of(name: str, placeholder: ModuleType) -> Any:
    def load(attribute: str) -> Any:
        if sys.modules.get(name) is placeholder:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    return load
