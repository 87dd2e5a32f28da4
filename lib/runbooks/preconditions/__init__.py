"""What must hold before a section changes anything: pure judgement of what was read.

Each function looks at one thing and answers met, not met, a warning, or could not tell, with what to do.
"""

from runbooks.preconditions.account import account_rights
from runbooks.preconditions.applications import annotated_services
from runbooks.preconditions.domain import (
    certificate_material,
    custom_domains,
    ingress_domain,
    one_label_hosts,
    strict_clients,
    usable_certificate,
)
from runbooks.preconditions.finding import Need, met
from runbooks.preconditions.ingress import (
    istio_path,
    kourier_path,
    local_gateway_variant,
    no_other_gateway,
    serving_with_istio,
)
from runbooks.preconditions.leftovers import authorization_policies, leftover_webhooks
from runbooks.preconditions.mesh import (
    control_plane,
    control_planes,
    drain_port,
    member_namespaces,
    mesh_namespace,
    monitoring_namespace,
    mutual_tls,
    mutual_tls_beside_kourier,
    mutual_tls_on,
    policies_of_the_mesh,
    sole_member_roll,
)
from runbooks.preconditions.operators import (
    documented_beside_kourier,
    mesh_operator,
    mesh_operator_beside_kourier,
    serverless_operator,
)
from runbooks.preconditions.secret_filter import (
    FILTERING_RULES,
    annotation_in_force,
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
    "annotated_services",
    "annotation_in_force",
    "authorization_policies",
    "certificate_material",
    "control_plane",
    "control_planes",
    "custom_domains",
    "documented_beside_kourier",
    "drain_port",
    "filtering_not_overridden",
    "filtering_rule",
    "ingress_domain",
    "istio_path",
    "kourier_path",
    "leftover_webhooks",
    "local_gateway_variant",
    "member_namespaces",
    "mesh_namespace",
    "mesh_operator",
    "mesh_operator_beside_kourier",
    "met",
    "monitoring_namespace",
    "mutual_tls",
    "mutual_tls_beside_kourier",
    "mutual_tls_on",
    "needed_secrets_labelled",
    "no_other_gateway",
    "one_label_hosts",
    "policies_of_the_mesh",
    "reads_of_needed_secrets",
    "secrets_not_shared",
    "serverless_operator",
    "serving_with_istio",
    "sole_member_roll",
    "strict_clients",
    "usable_certificate",
]
