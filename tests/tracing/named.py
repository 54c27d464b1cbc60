"""Symptoms by their names, for tests that say them in one word."""

import importlib
import pkgutil

from unmask.tracing import symptoms
from unmask.tracing.suspect import Symptom

BY_NAME = {
    found.name: found
    for file in pkgutil.iter_modules(symptoms.__path__)
    for found in vars(importlib.import_module(f"{symptoms.__name__}.{file.name}")).values()
    if isinstance(found, Symptom)
}


def named(*names: str) -> list[Symptom]:
    """The symptoms of these names."""
    return [BY_NAME[name] for name in names]
