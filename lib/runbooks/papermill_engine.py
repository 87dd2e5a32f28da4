"""The engine's entry point: ``papermill --engine runbooks``.

Every papermill command loads every installed engine, unguarded, in the middle of its own import: whatever failed here
would break them all. So nothing is imported before the engine is used.
"""

from __future__ import annotations

from typing import Any


class RunbooksEngine:
    """What papermill finds under the name ``runbooks``."""

    @classmethod
    def execute_notebook(cls, *args: Any, **kwargs: Any) -> Any:
        """Execute a notebook; a signal ends the process with 128 and its number, as a shell would say it."""
        from runbooks.engine import RunbookEngine
        from runbooks.keeper import Interrupted

        try:
            return RunbookEngine.execute_notebook(*args, **kwargs)
        except Interrupted as error:  # which papermill's command line makes an exit code 1 of
            raise SystemExit(128 + error.signum) from None

    @classmethod
    def nb_kernel_name(cls, *args: Any, **kwargs: Any) -> Any:
        """The kernel that the notebook names."""
        from runbooks.engine import RunbookEngine

        return RunbookEngine.nb_kernel_name(*args, **kwargs)

    @classmethod
    def nb_language(cls, *args: Any, **kwargs: Any) -> Any:
        """The language that the notebook names."""
        from runbooks.engine import RunbookEngine

        return RunbookEngine.nb_language(*args, **kwargs)
