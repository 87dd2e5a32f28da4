"""The objects of a section as YAML, for GitOps and for review; no cluster is asked, and no secret is shown: pure."""

from __future__ import annotations

from typing import Any

import yaml

from runbooks.manifests import UNKNOWN_NAME
from runbooks.plan import Desired
from runbooks.procedure.section import Section
from runbooks.situation import Situation


def manifests_of(section: Section, situation: Situation[Any]) -> str:
    """Every object that a section wants, as YAML documents with comments.

    Args:
        section: which one.
        situation: its parameters, and nothing read of any cluster.
    """
    found, version = situation.versions.serverless, situation.profile.serverless
    why = ", since serverless_version states none" if found is None else ""
    if found is not None and found.version != version:
        why = f", the newest known here, in place of {found.version}"
    lines = [f"# {section.number} {section.title} (for Serverless {version}{why})"]
    lines += [f"# {line}" for line in section.differences(situation, of_version=True)]
    for step in section.steps:
        for wanted in step.objects(situation):
            if isinstance(wanted, Desired):
                lines += _document(wanted, f"{section.number} {step.title}", situation)
    return "\n".join(lines if "---" in lines else [*lines, "# nothing to render"]) + "\n"


def _document(wanted: Desired, title: str, situation: Situation[Any]) -> list[str]:
    manifest = dict(wanted.manifest)
    lines = ["---", f"# {title}"]
    if wanted.amend:
        lines.append(f"# partial: merge it into the {wanted.ref} that there is, never create it")
    if wanted.ref.name == UNKNOWN_NAME:
        lines.append(f"# put the name of your {wanted.ref.kind} in")
    if wanted.shared_lists:
        lines.append("# shared list: add these entries, take none of the others out")
    if "data" in manifest:
        where = situation.parameters.certificates_dir or "your certificate store"
        names = ", ".join(manifest.pop("data"))
        lines.append(f"# {names}: not rendered; supply them from {where} or an external secret store")
    return [*lines, yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True).rstrip()]
