"""Runbooks that integrate Service Mesh with OpenShift Serverless (documented section 6.4).

A notebook imports two names from here::

    from runbooks import open_runbook, values_in_force

Everything else is reached through the runbook that the first one returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runbooks.notebook import open_runbook, overview, values_in_force
    from runbooks.step import Runbook

__all__ = ["Runbook", "open_runbook", "overview", "values_in_force"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: each papermill command on this machine imports this package."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from runbooks import notebook

    return getattr(notebook, name)
