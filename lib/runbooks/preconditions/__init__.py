"""What must hold before a section changes anything: pure judgement of what was read.

Each function looks at one thing and answers met, not met, a warning, or could not tell, with what to do.
"""

from runbooks.preconditions.account import account_rights
from runbooks.preconditions.domain import (
    certificate_material,
    custom_domains,
    ingress_domain,
    one_label_hosts,
    usable_certificate,
)
from runbooks.preconditions.finding import Need
from runbooks.preconditions.ingress import (
    istio_path,
    kourier_path,
    local_gateway_variant,
    no_other_gateway,
    serving_with_istio,
)
from runbooks.preconditions.mesh import (
    control_plane,
    control_planes,
    member_namespaces,
    mesh_namespace,
    monitoring_namespace,
    mutual_tls,
    mutual_tls_beside_kourier,
    mutual_tls_on,
)
from runbooks.preconditions.operators import (
    documented_beside_kourier,
    mesh_operator,
    mesh_operator_beside_kourier,
    serverless_operator,
)
from runbooks.preconditions.secret_filter import (
    FILTERING_RULES,
    filtering_not_overridden,
    filtering_rule,
    needed_secrets_labelled,
    reads_of_needed_secrets,
    secrets_not_shared,
)

__all__ = [
    "FILTERING_RULES",
    "Need",
    "account_rights",
    "certificate_material",
    "control_plane",
    "control_planes",
    "custom_domains",
    "documented_beside_kourier",
    "filtering_not_overridden",
    "filtering_rule",
    "ingress_domain",
    "istio_path",
    "kourier_path",
    "local_gateway_variant",
    "member_namespaces",
    "mesh_namespace",
    "mesh_operator",
    "mesh_operator_beside_kourier",
    "monitoring_namespace",
    "mutual_tls",
    "mutual_tls_beside_kourier",
    "mutual_tls_on",
    "needed_secrets_labelled",
    "no_other_gateway",
    "one_label_hosts",
    "reads_of_needed_secrets",
    "secrets_not_shared",
    "serverless_operator",
    "serving_with_istio",
    "usable_certificate",
]
