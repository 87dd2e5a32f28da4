"""The documented procedure as data: what each section *is*. Reading this file, a person sees what 6.4.3 does.

A section names its preconditions, and its steps in the documented order. A step names the objects that it leaves
behind, what the cluster must report before the next step, and the effects that prove it. Nothing here does anything:
``step`` carries a section out.
"""

from __future__ import annotations

from runbooks.procedure.check_prerequisites import check_prerequisites
from runbooks.procedure.create_ingress_certificates import CREATE_INGRESS_CERTIFICATES
from runbooks.procedure.enable_secret_filtering import ENABLE_SECRET_FILTERING
from runbooks.procedure.enable_serving_metrics import ENABLE_SERVING_METRICS
from runbooks.procedure.integrate_service_mesh import INTEGRATE_SERVICE_MESH
from runbooks.procedure.integrate_with_kourier import INTEGRATE_WITH_KOURIER
from runbooks.procedure.section import Section

_CHANGING = (
    CREATE_INGRESS_CERTIFICATES,
    INTEGRATE_SERVICE_MESH,
    ENABLE_SERVING_METRICS,
    INTEGRATE_WITH_KOURIER,
    ENABLE_SECRET_FILTERING,
)

SECTIONS: dict[str, Section] = {section.number: section for section in (check_prerequisites(_CHANGING), *_CHANGING)}


def section_of(name: str) -> Section | None:
    """The section of a documented number or a notebook's stem, or None where there is none."""
    for section in SECTIONS.values():
        if name in (section.number, section.stem, f"{section.stem}.ipynb"):
            return section
    return None


def path_of(ingress: str) -> tuple[Section, ...]:
    """All sections of the Istio or the Kourier path, in their order."""
    return tuple(section for section in SECTIONS.values() if section.path in ("both", ingress))
