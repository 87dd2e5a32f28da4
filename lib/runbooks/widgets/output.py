"""A part of a cell's output with a control in it, and the static twin that is left of it once it is answered."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from html import escape

import ipywidgets
from IPython.display import display, update_display

from runbooks.display import View
from runbooks.errors import RunbookError

_WIDGET = "application/vnd.jupyter.widget-view+json"
WIDE = {"width": "auto", "max_width": "60em", "flex": "1 1 20em"}
COMPACT = "line-height:1.35;display:block"
SIDE_BY_SIDE = {"flex_flow": "row wrap"}  # one below the other where the window is narrow
NARROW = {"width": "auto", "align_self": "flex-start"}
LABELLED = {"description_width": "14em"}


class Output:
    """A part of a cell's output that can be replaced later on.

    Args:
        view: what stands there at first.
        control: what is shown in its stead as long as it is alive and somebody can use it.
    """

    def __init__(self, view: View, control: ipywidgets.DOMWidget | None = None) -> None:
        self._id, self._control = uuid.uuid4().hex, control
        alive = {_WIDGET: {"version_major": 2, "version_minor": 0, "model_id": control.model_id}} if control else {}
        display({**view._repr_mimebundle_(), **alive}, raw=True, display_id=self._id)

    def replace(self, view: View) -> None:
        """Show another view, and no control any more."""
        update_display(view._repr_mimebundle_(), raw=True, display_id=self._id)
        if self._control:
            self._control.close()
            self._control = None


def says(button: ipywidgets.Button, field: ipywidgets.Text | ipywidgets.Combobox, words: Callable[[str], str]) -> None:
    """Let a button say what a press of it does with what the kernel knows of a field.

    A press may overtake what was typed last, while the kernel is slow: then it does what it said before.

    Args:
        button: whose label it is.
        field: what is typed into.
        words: the label, from what was typed.
    """

    def name() -> None:
        button.description = words(field.value.strip())

    field.observe(lambda _: name(), "value")
    name()


def told(text: str, *, amiss: bool = False) -> str:
    """A sentence of a control as HTML; what is amiss is read out at once by whoever cannot see it."""
    if not text:
        return ""
    if amiss:
        return f'<span role="alert" style="{COMPACT};color:var(--jp-error-color1)">✗ {escape(text)}</span>'
    return f'<span role="status" style="{COMPACT}">{escape(text)}</span>'


def sentence(error: Exception) -> str:
    """An error in one paragraph."""
    return " ".join(error.lines()) if isinstance(error, RunbookError) else f"{type(error).__name__}: {error}"
