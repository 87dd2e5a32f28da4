"""The person in front of the notebook: approve button, waits as they go on, errors with their way out."""

from __future__ import annotations

import contextlib
import datetime as dt
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ipywidgets

from runbooks import display as words
from runbooks.display import View
from runbooks.errors import OutOfOrder, RunbookError
from runbooks.presence import Question
from runbooks.wait import Look
from runbooks.widgets.output import COMPACT, LABELLED, NARROW, WIDE, Output, says, sentence, told


class Stopped(Exception):
    """A cell ended in an error that is shown already; the cells after it in a run of all are not run."""

    def _render_traceback_(self) -> list[str]:
        """What IPython prints instead of a traceback (its documented hook)."""
        return [str(self)]


class AtTheNotebook:
    """The person in front of the notebook.

    Args:
        values: what the runbook was opened with.
        now: the values in force; where they are others by now, the runbook's cells have to wait.
        archive: what archives the saved notebook that holds an outcome; it returns what is said of it.
    """

    attends = asks = True

    def __init__(
        self,
        values: Mapping[str, object],
        now: Callable[[], Mapping[str, object]],
        archive: Callable[[Mapping[str, Any]], View],
    ) -> None:
        self._bound, self._now, self._archive = dict(values), now, archive

    @contextlib.contextmanager
    def cell(self) -> Iterator[None]:
        """Show an error as a sentence, with the way to the runbook that mends it, and its traceback folded away."""
        try:
            self._refuse_other_values()
            yield
        except KeyboardInterrupt:
            lines = ("You interrupted this cell", "What to do: run it again; it goes on from what is there")
            Output(words.failure("interrupted", "", lines))
            raise Stopped("Interrupted.") from None
        except RunbookError as error:
            Output(words.failure("stopped", "", error.lines(), error.see, traceback.format_exc()))
            raise Stopped("Stopped, as said above.") from None
        except Exception as error:
            lines = (f"A fault of this program: {type(error).__name__}: {error}", "What to do: report it")
            Output(words.failure("stopped", "", lines, "", traceback.format_exc()))
            raise Stopped("Stopped, as said above.") from None

    def _refuse_other_values(self) -> None:
        now = self._now()
        if changed := [name for name, value in now.items() if value != self._bound.get(name, value)]:
            said = f"{', '.join(changed)} changed after the target was bound"
            raise OutOfOrder("running this cell", said, "run the cells from Bind the target on again")

    def ask(self, question: Question) -> None:
        """Show the question with its button; the answer takes the question's place."""
        # not at each key: a press may overtake what was typed last, so the button says whose name it will take
        shape = {"style": LABELLED, "layout": WIDE, "continuous_update": False}
        by = ipywidgets.Text(value=question.by, description="Approved by", **shape)
        name = ipywidgets.Text(description=f"Type {question.name}", **shape)
        button = ipywidgets.Button(button_style="warning", tooltip=question.view.text, layout=NARROW)
        says(button, by, lambda typed: f"{question.action} as {typed}" if typed else question.action)
        said = ipywidgets.HTML()
        asked = ipywidgets.HTML(value=f'<div style="{COMPACT}">{question.view.html}</div>')
        box = ipywidgets.VBox([asked, by, *([name] if question.name else []), button, said])
        output = Output(question.view, box)

        def approve(_: object) -> None:
            try:
                view = question.approve(by.value, name.value)
            except Exception as error:
                said.value = told(sentence(error), amiss=True)
                return
            output.replace(view)

        button.on_click(approve)

    def watch(self, timeout_s: float) -> Callable[[Sequence[Look]], None]:
        """One table that shows how far each object is, as long as the wait goes on, and how long it took."""
        since = dt.datetime.now(dt.UTC)
        until = since + dt.timedelta(seconds=timeout_s)
        shown: list[Output] = []

        def watched(looks: Sequence[Look]) -> None:
            view = words.awaiting(looks, since, until)
            if shown:
                shown[0].replace(view)
            else:
                shown.append(Output(view))

        return watched

    def ended(self, outcome: Mapping[str, Any], holds: Callable[[], bool]) -> None:
        """Offer to archive the notebook."""
        said = ipywidgets.HTML()
        button = ipywidgets.Button(
            description="Archive this notebook as the record",
            tooltip="Save it first: what is archived is the file",
            layout=NARROW,
        )
        text = "To keep it: save the notebook, then archive it here, or with: runbooks records add NOTEBOOK"
        view = words.note("archive", "", text)
        output = Output(view, ipywidgets.VBox([ipywidgets.HTML(value=view.html), button, said]))

        def archive(_: object) -> None:
            said.value = told("archiving …")
            try:
                if not holds():
                    attempted = "archiving the notebook"
                    raise OutOfOrder(
                        attempted, "cells were run after this outcome", "run the cell outcome again, and save"
                    )
                found = self._archive(outcome)
            except Exception as error:
                said.value = told(sentence(error), amiss=True)
                return
            output.replace(found)

        button.on_click(archive)
