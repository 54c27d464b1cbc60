"""Tells real adversarial robustness from gradient masking.

What most scripts need stands here; each name is imported when it is first used, for torch takes seconds to load.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .audit import audit as audit
    from .audit.verify import verify as verify
    from .classifier import Classifier as Classifier
    from .data import Data as Data
    from .data import load as load
    from .errors import UnmaskError as UnmaskError
    from .testing import assert_claim as assert_claim
    from .threat import L0 as L0
    from .threat import L1 as L1
    from .threat import L2 as L2
    from .threat import L0Elements as L0Elements
    from .threat import Linf as Linf
    from .threat import Patch as Patch
    from .threat import ThreatModel as ThreatModel
    from .tracing.intercept.raising import Raising as Raising
    from .types import Outputs as Outputs

__version__ = "0.1.0"

_ROOMS = {
    "L0": "threat",
    "L0Elements": "threat",
    "L1": "threat",
    "L2": "threat",
    "Linf": "threat",
    "Patch": "threat",
    "ThreatModel": "threat",
    "Classifier": "classifier",
    "Data": "data",
    "audit": "audit",
    "load": "data",
    "verify": "audit.verify",
    "Outputs": "types",
    "Raising": "tracing.intercept.raising",
    "UnmaskError": "errors",
    "assert_claim": "testing",
}
__all__ = ["__version__", *_ROOMS]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
            return import_module(f".{name}", __name__)  # `unmask.data.load` after `import unmask`
        raise AttributeError(f"module 'unmask' has no attribute {name!r}; it has {', '.join(_ROOMS)}")
    return getattr(import_module(f".{_ROOMS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
