"""The parameters of a runbook as a form, made from their schema; it sets the values in force, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
from pydantic.fields import FieldInfo

from runbooks import cluster, environments
from runbooks.cluster import Connection
from runbooks.display import note
from runbooks.errors import NotServed, RunbookError
from runbooks.kinds import KNATIVE_SERVICE, NAMESPACE
from runbooks.parameters import allowed_values, example, groups, wanted
from runbooks.procedure.section import Section
from runbooks.values import Values
from runbooks.widgets.output import COMPACT, LABELLED, NARROW, SIDE_BY_SIDE, WIDE, Output, says, sentence, told

_RULE = (
    "The form sets the values in force, which are printed below it; every cell after this one uses those. Without the "
    "form: edit the cell above, and run this one again."
)
_NAMESPACES = ("mesh_namespace", "service_namespace", "monitoring_namespace")
_OPEN = ("The cluster", "The change", "This runbook")  # the others unfold, by themselves where a value is wrong


class FormValues(Values):
    """Values that a person sets in a form.

    Args:
        section: whose they are.
        bound: what the cells have bound.
        folder: the environments' folders are in this one.
    """

    def __init__(self, section: Section, bound: Mapping[str, object], folder: Path) -> None:
        super().__init__(section, bound)
        self._folder = folder

    def _ipython_display_(self) -> None:
        """Show the form and, under it, the values in force (IPython's documented hook)."""
        Form(self, self._folder)


class _Shapes:
    """What fields look like, made once for all of them.

    Each layout and style is a part of its own that JupyterLab has to fetch when a page is opened again, and it gives
    up on a page that needs long.
    """

    def __init__(self) -> None:
        self.wide, self.plain = ipywidgets.Layout(**WIDE), ipywidgets.Layout()
        self.text, self.html = ipywidgets.Text(style=LABELLED).style, ipywidgets.HTML().style
        self.checkbox = ipywidgets.Checkbox(style={"description_width": "0"}).style
        self.buttons = ipywidgets.ToggleButtons(style={"button_width": "auto"}).style
        self.label, self.auto = ipywidgets.Layout(width="14em"), ipywidgets.Layout(width="auto")
        self.side_by_side = ipywidgets.Layout(**SIDE_BY_SIDE)

    def shown(self, html: str = "") -> ipywidgets.HTML:
        return ipywidgets.HTML(value=html, layout=self.plain, style=self.html)


class _Row:
    """One parameter: its control, what it means, and what is wrong with its value."""

    def __init__(self, name: str, field: FieldInfo, values: Values, shapes: _Shapes) -> None:
        self.name, self._values, self._shapes = name, values, shapes
        self.control = _control(name, field, values[name], shapes)
        plain = allowed_values(field) or field.annotation is bool or not (field.examples or field.default)
        hint = "" if plain else f" ({wanted(field)}, like {_text(example(field))})"
        small = f"{COMPACT};font-size:.85em;opacity:.8"
        self._meaning = f'<span style="{small}">{escape((field.description or "") + hint)}</span>'
        self._below = shapes.shown()
        first = self.control
        if isinstance(first, ipywidgets.ToggleButtons):  # which have no label of their own
            label = f'<div style="text-align:right">{escape(name)}</div>'
            named = ipywidgets.HTML(value=label, layout=shapes.label, style=shapes.html)
            first = ipywidgets.HBox([named, self.control], layout=shapes.side_by_side)
        self.box = ipywidgets.VBox([first, self._below], layout=shapes.plain)

    def listen(self, changed: Any) -> None:
        self.control.observe(lambda _: changed(self), "value")

    def offer(self, names: list[str]) -> None:
        """Offer what the cluster has: to choose from, or to add to a list."""
        if not isinstance(self._values[self.name], list):
            self.control.options = names
            return
        more = ipywidgets.Combobox(
            description=f"add to {self.name}",
            options=names,
            continuous_update=False,
            layout=self._shapes.wide,
            style=self._shapes.text,
        )

        def add(change: Mapping[str, Any]) -> None:
            if (chosen := change["new"]) in names:
                self.control.value = ", ".join(filter(None, (self.control.value, chosen)))
                more.value = ""

        more.observe(add, "value")
        self.box.children = (*self.box.children[:2], more)

    def show(self) -> None:
        """What the value is now, in the control, and what is wrong with it."""
        wrong = told(self._values.wrong_with(self.name), amiss=True)
        self._below.value = f'<div style="margin:-6px 0 6px 14.5em">{wrong}{self._meaning}</div>'

    def take(self) -> None:
        """Show the value in force in the control."""
        value = self._values[self.name]
        if isinstance(self.control, ipywidgets.Checkbox):
            self.control.value = value is True
        elif isinstance(self.control, ipywidgets.ToggleButtons):
            self.control.value = value if value in self.control.options else None
        else:
            self.control.value = _text(value)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _control(name: str, field: FieldInfo, value: object, shapes: _Shapes) -> Any:
    if allowed := allowed_values(field):
        # no list to unfold: JupyterLab takes the arrow keys away from one, and letters for its own commands
        return ipywidgets.ToggleButtons(
            options=allowed,
            value=value if value in allowed else None,
            tooltips=[f"{name}: {one}" for one in allowed],
            style=shapes.buttons,
            layout=shapes.auto,
        )
    shape: dict[str, Any] = {"description": name, "layout": shapes.wide, "tooltip": field.description}
    if field.annotation is bool:
        return ipywidgets.Checkbox(value=value is True, indent=True, style=shapes.checkbox, **shape)
    shape |= {"style": shapes.text, "continuous_update": False}
    if name == "context" or name in (*_NAMESPACES, "service_name"):
        return ipywidgets.Combobox(value=_text(value), ensure_option=False, **shape)
    return ipywidgets.Text(value=_text(value), **shape)


class Form:
    """The form of one runbook.

    Args:
        values: what it sets.
        folder: the environments' folders are in this one.
    """

    def __init__(self, values: Values, folder: Path) -> None:
        self._values, self._folder, self._loading = values, folder, False
        fields, shapes = values.model.model_fields, _Shapes()
        self._rows = {
            name: _Row(name, fields[name], values, shapes) for names in self._groups.values() for name in names
        }
        self._folded: dict[tuple[str, ...], ipywidgets.ToggleButton] = {}
        self._said = ipywidgets.HTML()
        self._command = ipywidgets.HTML()
        self._rows["context"].offer(_contexts(values))
        text = note("form", "", f"A form, where JupyterLab shows it. {_RULE}")
        Output(text, self._laid_out())
        self._static = Output(values.view())
        for one in self._rows.values():
            one.listen(self._changed)
        self._show()

    @property
    def _groups(self) -> dict[str, tuple[str, ...]]:
        return groups(self._values.model)

    def _laid_out(self) -> ipywidgets.VBox:
        parts: list[Any] = [ipywidgets.HTML(value=f'<p style="{COMPACT}">{escape(_RULE)}</p>'), self._environments()]
        for title, names in self._groups.items():
            rows = ipywidgets.VBox([self._rows[name].box for name in names])
            if title in _OPEN:
                parts.append(ipywidgets.HTML(value=f"<b>{escape(title)}</b>"))
            else:
                self._folded[names] = _unfolding(title, rows)
                parts.append(self._folded[names])
            parts.append(rows)
            if title == "The cluster":
                parts.append(_button("Look up names on the cluster", self._look_up))
        return ipywidgets.VBox([*parts, self._said, self._command, self._saving()])

    def _environments(self) -> ipywidgets.HBox:
        known = environments.names(self._folder)
        chosen = ipywidgets.Combobox(
            options=known,
            description="parameters file",
            placeholder=", ".join(known),
            style=LABELLED,
            layout=WIDE,
            continuous_update=False,
        )

        def load() -> str:
            if chosen.value not in known:
                return f"choose one of {', '.join(known)}" if known else f"there is none in {self._folder}"
            found = environments.read(self._values.section, self._folder / chosen.value)
            defaults = {name: field.default for name, field in self._values.model.model_fields.items()}
            self._values.set(defaults | found)
            self._take()
            return f"{chosen.value} is loaded"

        button = _button("Load", lambda: self._do(load))
        says(button, chosen, lambda typed: f"Load {typed}" if typed in known else "Load")
        return ipywidgets.HBox([chosen, button], layout=SIDE_BY_SIDE)

    def _saving(self) -> ipywidgets.HBox:
        name = ipywidgets.Text(description="save as environment", style=LABELLED, layout=WIDE, continuous_update=False)

        def save() -> str:
            if name.value.strip() in ("", ".", "..") or Path(name.value).name != name.value.strip():
                return f"type a name, for example prod-a; the files go to {self._folder}"
            written = environments.save(self._values.section, self._values.to_keep, self._folder / name.value.strip())
            return f"written: {', '.join(map(str, written))}" if written else "they are there already"

        button = _button("Save", lambda: self._do(save))
        says(button, name, lambda typed: f"Save as {typed}" if typed else "Save")
        return ipywidgets.HBox([name, button], layout=SIDE_BY_SIDE)

    def _look_up(self) -> None:
        def look_up() -> str:
            values = self._values
            connection = cluster.connect(values.path("kubeconfig"), str(values["context"]))
            namespaces = sorted(live["metadata"]["name"] for live in connection.objects(NAMESPACE, ""))
            for name in (*_NAMESPACES, "members"):
                if name in self._rows:
                    self._rows[name].offer(namespaces)
            if "service_name" in self._rows:
                self._rows["service_name"].offer(_services(connection, str(values["service_namespace"])))
            return f"{connection.server} has {len(namespaces)} namespaces; they are offered where one is wanted"

        self._do(look_up)

    def _do(self, work: Any) -> None:
        """Do what a button asks for, and say how it went."""
        self._said.value = told("asking …")
        try:
            self._said.value = told(work())
        except (RunbookError, OSError) as error:
            self._said.value = told(sentence(error), amiss=True)

    def _changed(self, one: _Row) -> None:
        if self._loading:
            return
        value = one.control.value
        if isinstance(value, bool):
            self._values.set({one.name: value})
        elif value is not None:
            self._values.typed(one.name, value)
        if one.name == "kubeconfig":
            self._rows["context"].offer(_contexts(self._values))
        self._show()

    def _take(self) -> None:
        """Show what was loaded."""
        self._loading = True
        try:
            for one in self._rows.values():
                one.take()
        finally:
            self._loading = False
        self._rows["context"].offer(_contexts(self._values))
        self._show()

    def _show(self) -> None:
        for one in self._rows.values():
            one.show()
        for names, toggle in self._folded.items():
            if any(self._values.wrong_with(name) for name in names):
                toggle.value = True
        command = f'<pre style="white-space:pre-wrap">{escape(self._values.papermill_command)}</pre>'
        self._command.value = f"<b>As papermill command</b>{command}"
        self._static.replace(self._values.view())


def _contexts(values: Values) -> list[str]:
    """The contexts of the kubeconfig; none where it cannot be read, which binding the target then tells."""
    try:
        return cluster.contexts(values.path("kubeconfig"))
    except RunbookError:
        return []


def _services(connection: Connection, namespace: str) -> list[str]:
    """The Knative Services of a namespace; none where Serving is not installed yet."""
    try:
        return sorted(live["metadata"]["name"] for live in connection.objects(KNATIVE_SERVICE, namespace))
    except NotServed:
        return []


def _button(text: str, work: Any) -> ipywidgets.Button:
    button = ipywidgets.Button(description=text, tooltip=text, layout=NARROW)
    button.on_click(lambda _: work())
    return button


def _unfolding(title: str, rows: ipywidgets.VBox) -> ipywidgets.ToggleButton:
    """A button that shows and hides rows, which begin hidden."""
    rows.layout.display = "none"
    toggle = ipywidgets.ToggleButton(description=f"Show: {title.lower()}", layout=NARROW)

    def toggled(change: Mapping[str, Any]) -> None:
        rows.layout.display = "" if change["new"] else "none"
        toggle.description = f"{'Hide' if change['new'] else 'Show'}: {title.lower()}"

    toggle.observe(toggled, "value")
    return toggle
