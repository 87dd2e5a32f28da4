"""The values in force of a notebook: what its cells have bound, then what its form has set.

Everything after the cell ``values`` uses these. A value that is wrong stays visible and is told; it stops the run where
the target is bound, before any cluster is asked.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from runbooks import display
from runbooks.display import View
from runbooks.parameters import BY_THE_CALLER, expand, from_text, problems
from runbooks.procedure.section import Section


class Values(Mapping[str, object]):
    """The values in force of one runbook.

    Args:
        section: which one.
        bound: the names and values that the notebook's cells have bound.
    """

    def __init__(self, section: Section, bound: Mapping[str, object]) -> None:
        self.section, self.model = section, section.model
        self._values = {name: field.default for name, field in self.model.model_fields.items()} | dict(bound)

    def __getitem__(self, name: str) -> object:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def set(self, changes: Mapping[str, object]) -> None:
        """Put values in force, right or wrong."""
        self._values = self._values | dict(changes)  # one assignment: a form answers in a thread of its own

    def typed(self, name: str, text: str) -> None:
        """Put in force what a person typed."""
        self.set({name: from_text(self.model, name, text)})

    def frozen(self) -> dict[str, object]:
        """A copy of this moment."""
        return dict(self._values)

    @property
    def given(self) -> dict[str, Any]:
        """Those that differ from the default, in the schema's order."""
        defaults = {name: field.default for name, field in self.model.model_fields.items()}
        known = {name: self._values[name] for name in defaults if self._values[name] != defaults[name]}
        return known | {name: value for name, value in self._values.items() if name not in defaults}

    @property
    def wrong(self) -> list[str]:
        """What is wrong with them, one sentence each."""
        return problems(self.model, self._values)

    def wrong_with(self, name: str) -> str:
        """What is wrong with one of them; empty where nothing is."""
        return "; ".join(said.partition(": ")[2] for said in self.wrong if said.startswith(f"{name}: "))

    def path(self, name: str) -> str:
        """One of them that is a path, expanded; as it stands where that cannot be done."""
        try:
            return expand(str(self._values[name]))
        except ValueError:
            return str(self._values[name])

    @property
    def to_keep(self) -> dict[str, Any]:
        """Those that belong in a parameters file: what is set, and is no matter of a single call."""
        return {name: value for name, value in self.given.items() if name not in ("mode", *BY_THE_CALLER)}

    @property
    def papermill_command(self) -> str:
        """The command that runs the notebook headlessly with these values."""
        words = ["papermill", f"{self.section.stem}.ipynb", "out.ipynb"]
        for name, value in self.given.items():
            if isinstance(value, str):
                words += ["-r", name, value]  # as it stands; -p would read 1.30 as a number
            elif isinstance(value, list):
                words += ["-y", yaml.safe_dump({name: value}, default_flow_style=True, width=10**6).strip()]
            else:
                words += ["-p", name, str(value)]
        return shlex.join(words)

    def view(self) -> View:
        """The values as a cell shows them."""
        rest = {name: value for name, value in self._values.items() if name not in self.given}
        return display.values(self.section, self.given, rest, self.wrong)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        """What IPython stores as the cell's output (its documented hook)."""
        return self.view()._repr_mimebundle_()
