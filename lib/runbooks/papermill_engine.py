"""The engine's entry point: ``papermill --engine runbooks``.

Every papermill command loads every installed engine, unguarded, in the middle of its own import: whatever failed here
would break them all. So nothing is imported before the engine is used.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any


class RunbooksEngine:
    """What papermill finds under the name ``runbooks``."""

    @classmethod
    def execute_notebook(cls, nb: Any, *args: Any, **kwargs: Any) -> Any:
        """Execute a notebook, and keep a signed record where it is a runbook.

        A signal ends the process with 128 and its number, as a shell would say it.

        Raises:
            SigningKeyError: there is no key that could sign the record; nothing was run.
            Exception: as for ``engine.execute``.
        """
        from runbooks.engine import RunbookEngine
        from runbooks.keeper import Interrupted

        try:
            with _recorder(nb.metadata) as recorder:
                return RunbookEngine.execute_notebook(nb, *args, keeper=recorder, **kwargs)
        except Interrupted as error:  # which papermill's command line makes an exit code 1 of
            if error.__cause__:  # why there is no record, or one without the notebook
                logging.getLogger("papermill").error(str(error.__cause__))
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


def _recorder(described: Any) -> Any:
    if "runbook" not in described:  # some other notebook: executed truly, and not recorded
        return contextlib.nullcontext()
    from runbooks.recorder import of_papermill

    if not (recorder := of_papermill(described)):
        return contextlib.nullcontext()
    logging.getLogger("papermill").info("Record:          %s", recorder.run.id)
    return recorder
