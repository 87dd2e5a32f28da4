"""The typed parameters of each runbook.

One schema feeds everything: the check before anything is read, the notebook's ``parameters`` cell, the command
line's ``-p``, and the reference table in the documentation. A value is accepted as it was typed or refused; nothing
is coerced, because YAML reads ``1.30`` as a number and ``no`` as false, and a wrong guess changes a cluster.
"""

from __future__ import annotations

import datetime as dt
import difflib
import os
import re
import reprlib
import unicodedata
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.fields import FieldInfo

from runbooks import input_file
from runbooks.errors import UNSEEN, ParameterError

# What an interactive kernel binds before the first cell; everything else in the first cell's globals() is a parameter.
_KERNEL_NAMES = frozenset({"In", "Out", "get_ipython", "exit", "quit", "open"})
_PLACEHOLDER = re.compile(r"<[^<>]*>")
# what is drawn as nothing, or as a blank that no other program takes for one; a Japanese blank is a blank
_BLANK = re.compile(
    r"[\u00a0\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2000-\u200a\u202f\u205f\u3164\ufe00-\ufe0f\uffa0]"
)
_LONGEST_TEXT = 1024
_LONGEST_PATH = 4096  # Linux, PATH_MAX
_LONGEST_FREE_TEXT = 10_000
_LONGEST_SUBJECT = 64  # RFC 5280, ub-organization-name and ub-common-name
_MOST_PROBLEMS = 20
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
# what people change by hand is theirs to lose; controllers and GitOps would only change it back
_HANDS = (
    *("kubectl-edit", "kubectl-patch", "kubectl-label", "kubectl-annotate", "kubectl-create"),
    *("kubectl-client-side-apply", "oc", "Mozilla"),
)
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_SERVING_NAMESPACE = "knative-serving"
_OUTSIDE_BESIDE_KOURIER = (_SERVING_NAMESPACE, "knative-serving-ingress")
_VERSION = r"[0-9]+\.[0-9]+(\.[0-9]+)?"


def _printable(text: str) -> str:
    for character in text:
        if unicodedata.category(character) in UNSEEN or _BLANK.match(character):
            raise ValueError(f"holds the invisible character U+{ord(character):04X}")
    return text


def _no_placeholder(text: str) -> str:
    if found := _PLACEHOLDER.search(_printable(text)):
        raise ValueError(f"still holds the placeholder {found.group()} of the documented text")
    return text


def expand(text: str) -> str:
    """An absolute path, with ``~``, ``${NAME}`` and ``${NAME:-default}`` expanded.

    A relative path is refused because papermill, cron and JupyterLab each start in a different folder.

    Raises:
        ValueError: it is relative, or names what is not known.
    """
    if not _no_placeholder(text):
        return text

    def value(found: re.Match[str]) -> str:
        name, default = found["name"], found["default"]
        # as in a shell, :- also replaces an empty value
        if default is not None:
            return os.environ.get(name) or default
        if name not in os.environ:
            raise ValueError(f"names the environment variable {name}, which is not set")
        return os.environ[name]

    try:
        path = Path(_printable(_VARIABLE.sub(value, text))).expanduser()
    except RuntimeError as error:
        raise ValueError("names a home folder that is not known") from error
    if not path.is_absolute():
        raise ValueError(f"is a relative path; write {path.absolute()}")
    return str(path)


def _trust_anchor(text: str) -> str:
    return text if text == "system" else expand(text)


def _port(text: str) -> str:
    if text and not 0 < int(text.rpartition(":")[2]) < 65536:
        raise ValueError("holds a port that cannot be")
    return text


def _moment(text: str) -> str:
    if text:
        try:
            zone = dt.datetime.fromisoformat(text).tzinfo
        except ValueError as error:
            raise ValueError("is no moment; write 2026-12-01T06:00:00+09:00") from error
        if zone is None:
            raise ValueError(f"has no zone; write {text}Z for UTC, or {text}+09:00")
    return text


def _unique(names: list[str]) -> list[str]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"names {', '.join(repeated)} more than once")
    return names


Text = Annotated[str, StringConstraints(max_length=_LONGEST_TEXT), AfterValidator(_no_placeholder)]
FreeText = Annotated[str, StringConstraints(max_length=_LONGEST_FREE_TEXT)]
PathText = Annotated[str, StringConstraints(max_length=_LONGEST_PATH), AfterValidator(expand)]
Subject = Annotated[Text, StringConstraints(min_length=1, max_length=_LONGEST_SUBJECT)]
Name = Annotated[Text, StringConstraints(pattern=rf"^{_LABEL}$")]
DottedName = Annotated[Text, StringConstraints(pattern=rf"^{_LABEL}(\.{_LABEL})*$", max_length=253)]
Domain = Annotated[Text, StringConstraints(pattern=rf"^({_LABEL}(\.{_LABEL})+)?$", max_length=251)]
Version = Annotated[Text, StringConstraints(pattern=rf"^({_VERSION})?$")]
Moment = Annotated[Text, AfterValidator(_moment)]
Digest = Annotated[Text, StringConstraints(pattern=r"^plan-sha256:[0-9a-f]{64}$")]
Names = Annotated[list[Name], AfterValidator(_unique)]


class Parameters(BaseModel):
    """What every runbook takes; an environment's ``cluster.yaml`` sets these once for all of them."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    section: ClassVar[str] = ""

    mode: Literal["verify", "plan", "apply"] = Field(
        "plan", description="verify (reads only), plan (shows what would change) or apply (changes it, then proves it)"
    )
    context: Text = Field(
        "", description="kubeconfig context of the cluster to change, or in-cluster", examples=["admin@prod-a"]
    )
    kubeconfig: PathText = Field(
        "", description="kubeconfig file; empty: $KUBECONFIG, else ~/.kube/config", examples=["~/.kube/config"]
    )
    api_server: Text = Field(
        "",
        description="the API server that must answer; empty: not checked",
        examples=["https://api.prod-a.example.com:6443"],
    )
    cluster_id: Text = Field(
        "",
        description="the cluster id that must answer (oc get clusterversion); empty: not checked",
        examples=["5b9c3c6e-7f0f-4f0e-8d5e-0f5c1f1f2a3b"],
    )
    ingress: Literal["istio", "kourier"] = Field(
        "istio", description="the ingress of Knative Serving on this cluster: istio (6.4.3) or kourier (6.4.5)"
    )
    mesh_namespace: Name = Field(
        "istio-system", description="namespace of the ServiceMeshControlPlane", examples=["istio-system"]
    )
    members: Names = Field(
        ["default"],
        description="application namespaces to integrate with the mesh; in 6.4.3 knative-serving always joins them",
        min_length=1,
        examples=[["shop", "billing"]],
    )
    mtls: Literal["any", "required"] = Field(
        "any", description="required: stop unless the control plane has mTLS switched on"
    )
    ingress_domain: Domain = Field(
        "",
        description="domain that the wildcard certificate covers; empty: the cluster's ingress domain",
        examples=["apps.openshift.example.com"],
    )
    certificate_secret: DottedName = Field(
        "wildcard-certs",
        description="TLS Secret of the ingress gateway, in the mesh namespace",
        examples=["wildcard-certs"],
    )
    certificates_dir: PathText = Field(
        "",
        description="folder of root.crt, root.key, wildcard.crt and wildcard.key",
        examples=["~/certificates/prod-a"],
    )
    trust_anchor: Annotated[str, StringConstraints(max_length=_LONGEST_PATH), AfterValidator(_trust_anchor)] = Field(
        "",
        description="CA file that clients trust, or system; empty: root.crt in certificates_dir",
        examples=["/etc/pki/example-ca.crt"],
    )
    ingress_address: Annotated[Text, StringConstraints(pattern=r"^([^\s:]+:[0-9]{1,5})?$"), AfterValidator(_port)] = (
        Field(
            "",
            description="HOST:PORT to connect to instead of what DNS says (curl --connect-to); empty: DNS",
            examples=["192.0.2.10:443"],
        )
    )
    serverless_version: Version = Field(
        "",
        description="version of OpenShift Serverless, in quotes; only where it cannot be read from the cluster",
        examples=["1.30"],
    )
    mesh_version: Version = Field(
        "",
        description="version of OpenShift Service Mesh, in quotes; only where it cannot be read from the cluster",
        examples=["2.3"],
    )
    take_over: list[Text] = Field(
        list(_HANDS),
        description="field managers whose values a runbook may replace; it stops for all others",
    )
    strict_documentation: bool = Field(
        False, description="true: keep to documented keys and labels even where a version or cluster has others"
    )
    timeout_s: Annotated[int, Field(ge=1, le=86400)] = Field(600, description="longest wait for each step, in seconds")
    change_ticket: Text = Field("", description="number of the approved change", examples=["CHG0031337"])
    reason: FreeText = Field("", description="why this is done, in your own words; kept in the record")
    require_change_ticket: bool = Field(False, description="true: apply wants a change_ticket")
    require_reason: bool = Field(False, description="true: apply wants a reason")
    require_approval: bool = Field(False, description="true: apply changes only what approve names")
    approve: list[Digest] = Field(
        [],
        description="digests of the plans that are approved; apply then changes nothing else",
        examples=[["plan-sha256:" + 64 * "0"]],
    )
    approved_by: Text = Field("", description="who approved them", examples=["Sato"])
    approve_until: Moment = Field(
        "", description="until when the approval holds, with a zone", examples=["2026-12-01T06:00:00+09:00"]
    )
    approval_minutes: Annotated[int, Field(ge=1, le=1440)] = Field(
        60, description="how long an approval holds that is given in the notebook, in minutes"
    )
    production: bool = Field(
        False, description="true: whoever approves in the notebook types the name of the API server"
    )
    preceded_by: list[Text] = Field(
        [], description="sections that the same call runs before this one; runbooks run sets it", examples=[["6.4.2"]]
    )

    @property
    def all_members(self) -> tuple[str, ...]:
        """The namespaces that the section adds to the mesh."""
        return tuple(self.members)


class CreateIngressCertificates(Parameters):
    """What 6.4.2 takes besides."""

    section: ClassVar[str] = "6.4.2"

    certificate_source: Literal["create", "files", "secret", "request"] = Field(
        "create",
        description="create: own root; files: key_file and chain_file; secret: use the existing Secret; "
        "request: make a CSR for your CA",
    )
    key_file: PathText = Field("", description="files: the private key, PEM", examples=["~/wildcard.key"])
    chain_file: PathText = Field(
        "", description="files and request: the certificate chain, leaf first, PEM", examples=["~/wildcard-chain.crt"]
    )
    organization: Subject = Field("Example Inc.", description="O of the certificates' subjects")
    root_common_name: Subject = Field("example.com", description="CN of the root's subject")
    root_valid_days: Annotated[int, Field(ge=1, le=36500)] = Field(365, description="validity of a new root, in days")
    valid_days: Annotated[int, Field(ge=1, le=3650)] = Field(
        365, description="validity of a new wildcard certificate, in days; never beyond its root"
    )
    renew_before_days: Annotated[int, Field(ge=0, le=3650)] = Field(
        30, description="renew a certificate that ends in fewer days"
    )


class IntegrateServiceMesh(Parameters):
    """What 6.4.3 takes besides."""

    section: ClassVar[str] = "6.4.3"

    local_gateway: Literal["http", "https"] = Field(
        "http", description="variant of knative-local-gateway; https is documented but breaks cluster-local traffic"
    )
    service_name: Name = Field("hello", description="name of the Knative Service that proves the integration")
    service_namespace: Name = Field("default", description="its namespace; must be one of the members")
    service_image: Annotated[Text, StringConstraints(pattern=r"^[^\s]+$")] = Field(
        "quay.io/openshift-knative/helloworld-go:latest",
        description="its container image",
    )
    expected_body: FreeText = Field("Hello Openshift!", description="text that its answer must contain")

    @property
    def all_members(self) -> tuple[str, ...]:
        """The namespaces that 6.4.3 adds; the page insists that knative-serving is among them."""
        return tuple(dict.fromkeys((_SERVING_NAMESPACE, *self.members)))


class EnableServingMetrics(Parameters):
    """What 6.4.4 takes besides."""

    section: ClassVar[str] = "6.4.4"

    monitoring_namespace: Name = Field("openshift-monitoring", description="namespace in which Prometheus runs")
    restart_pods: bool = Field(
        False,
        description="true: evict, one at a time, the Pods whose sidecars were made before the port was excluded; "
        "false: name them",
    )


class EnableSecretFiltering(Parameters):
    """What 6.4.6 takes besides."""

    section: ClassVar[str] = "6.4.6"

    measure_secrets: bool = Field(
        False,
        description="true: show how many Secrets there are with and without the filter, from metadata only; it needs "
        "the right to list the Secrets of the whole cluster",
    )


class IntegrateWithKourier(Parameters):
    """What 6.4.5 takes: nothing besides what all runbooks share."""

    section: ClassVar[str] = "6.4.5"


class CheckPrerequisites(
    CreateIngressCertificates, IntegrateServiceMesh, EnableServingMetrics, EnableSecretFiltering, IntegrateWithKourier
):
    """What 6.4.1 takes besides: what the sections would be run with, since it judges just that."""

    section: ClassVar[str] = "6.4.1"

    custom_domains: list[DottedName] = Field(
        [],
        description="domains outside of the cluster's own that have to be mapped",
        examples=[["www.example.org"]],
    )

    @property
    def all_members(self) -> tuple[str, ...]:
        """No section's own; each judges with its own parameters."""
        return tuple(self.members)


# --- the order in which a person is asked for them; what is in none of the groups is asked for last ---------------

GROUPS: dict[str, tuple[str, ...]] = {
    "The cluster": ("context", "kubeconfig", "members"),
    "The change": ("mode", "change_ticket", "reason"),
    "The right cluster": ("api_server", "cluster_id", "production"),
    "Service Mesh and Knative": ("ingress", "mesh_namespace", "mtls"),
    "Certificates and the way in": (
        *("ingress_domain", "certificate_secret", "certificates_dir", "trust_anchor", "ingress_address"),
    ),
    "Seldom needed": (
        *("serverless_version", "mesh_version", "take_over", "strict_documentation", "timeout_s", "approval_minutes"),
        *("require_change_ticket", "require_reason", "require_approval"),
    ),
}
BY_THE_CALLER = ("approve", "approved_by", "approve_until", "preceded_by")


def groups(model: type[Parameters]) -> dict[str, tuple[str, ...]]:
    """The names of a runbook's parameters by group, its own ones first after the cluster and the change."""
    shared = {name for names in GROUPS.values() for name in names} | set(BY_THE_CALLER)
    own = tuple(name for name in model.model_fields if name not in shared)
    first, second, *others = GROUPS
    found = {first: GROUPS[first], second: GROUPS[second], **({"This runbook": own} if own else {})}
    return found | {name: GROUPS[name] for name in others}


# --- checking ----------------------------------------------------------------------------------------------------

_WANTED = {str: "text", int: "a whole number", bool: "true or false", list: "a list of names"}
_GIVEN = {str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list", dict: "a mapping"}


def _plain_type(field: FieldInfo) -> type:
    annotation = field.annotation
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin = get_origin(annotation)
    if origin is Literal:
        return str
    plain = origin or annotation
    assert isinstance(plain, type)
    return plain


def allowed_values(field: FieldInfo) -> tuple[str, ...]:
    """The values of a parameter that is a choice; empty for all others."""
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def wanted(field: FieldInfo) -> str:
    """What a parameter wants, in words: its allowed values, or its type."""
    if allowed := allowed_values(field):
        return "one of " + ", ".join(allowed)
    return _WANTED[_plain_type(field)]


def example(field: FieldInfo) -> Any:
    """A value that the parameter accepts."""
    if field.examples:
        return field.examples[0]
    return field.default if field.default not in ("", []) else (allowed_values(field) or ("…",))[0]


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 200
_short.maxlist, _short.maxlevel = 10, 2


def _shown(value: object) -> str:
    """A value as an error shows it: its start, where it is longer than anybody reads."""
    try:
        return _short.repr(value)
    except ValueError:  # a number of thousands of digits is refused by repr() itself
        return f"a number of {value.bit_length():,} bits" if isinstance(value, int) else type(value).__name__


def _said(name: str, field: FieldInfo, value: object, reason: str) -> str:
    shown = f"{_shown(value)} is {_GIVEN.get(type(value), type(value).__name__)}"
    if type(value) is float and _plain_type(field) is str:
        shown += " (YAML reads 1.30 as the number 1.3: put it in quotes)"
    what = reason or f"{shown}; wanted {wanted(field)}"
    return f"{name}: {what}, for example {example(field)!r}"


def _problem(model: type[Parameters], error: Mapping[str, Any]) -> str:
    name = str(error["loc"][0])
    field, value = model.model_fields[name], error["input"]
    shown = _shown(value)
    kind = error["type"]
    if kind == "value_error":
        return f"{name}: {shown} {error['ctx']['error']}"
    if kind == "string_unicode":  # typed in another encoding than UTF-8, or "\ud800" in YAML
        return f"{name}: {shown} holds half of a character, which no file could keep"
    if kind == "string_pattern_mismatch":
        return _said(name, field, value, f"{shown} is not valid here")
    if kind in ("too_short", "greater_than_equal", "less_than_equal", "string_too_short", "string_too_long"):
        return _said(name, field, value, f"{shown}: {error['msg'].lower()}")
    if len(error["loc"]) > 1:
        return f"{name}: item {error['loc'][1]} ({shown}) is not text"
    return _said(name, field, value, "")


def unknown(names: Iterable[str], model: type[Parameters]) -> list[str]:
    """One sentence for each name that the runbook has no parameter for, with the nearest one it has."""
    found = []
    for name in names:
        if name not in model.model_fields:
            near = difflib.get_close_matches(name[:_LONGEST_SUBJECT], model.model_fields, n=1)
            who = f"runbook {model.section} has" if model.section else "the runbooks share"
            shown = name if len(name) <= _LONGEST_SUBJECT else f"{name[:_LONGEST_SUBJECT]}…"
            found.append(f"{shown}: {who} no such parameter" + (f"; {near[0]}?" if near else ""))
    return found


def problems(model: type[Parameters], values: Mapping[str, object]) -> list[str]:
    """What is wrong with the values, one sentence each, which begins with the parameter's name; empty where nothing is.

    Args:
        model: the runbook's schema.
        values: names and values as given.
    """
    return _checked(model, values)[1]


def _checked(model: type[Parameters], values: Mapping[str, object]) -> tuple[Parameters | None, list[str]]:
    found = unknown(values, model)
    if not values.get("context"):  # told along with whatever else is wrong
        found.append("context: missing; wanted a kubeconfig context or in-cluster, for example 'admin@prod-a'")
    try:
        parameters = model.model_validate({name: values[name] for name in values if name in model.model_fields})
    except ValidationError as error:
        wrong = error.errors()
        found += [_problem(model, dict(item)) for item in wrong[:_MOST_PROBLEMS]]
        more = len(wrong) - _MOST_PROBLEMS
        return None, found + ([f"and {more:,} values more are wrong"] if more > 0 else [])
    return parameters, found + _missing(parameters)


def check(model: type[Parameters], values: Mapping[str, object], files: Iterable[Path] = ()) -> Parameters:
    """The typed parameters.

    Args:
        model: the runbook's schema.
        values: names and values as given.
        files: what they were read from, for the error to name.

    Raises:
        ParameterError: a name is unknown, or a value is missing, of the wrong type, or not usable. It names all of
            them at once.
    """
    parameters, found = _checked(model, values)
    if found or parameters is None:
        read = " and ".join(map(str, files))
        attempted = f"reading the parameters of runbook {model.section}" + (f" in {read}" if read else "")
        raise ParameterError(attempted, "; ".join(found), "correct them; nothing was changed")
    return parameters


def _missing(parameters: Parameters) -> list[str]:
    found = []
    if parameters.mode == "apply":
        for name in ("change_ticket", "reason"):
            if getattr(parameters, f"require_{name}") and not getattr(parameters, name).strip():
                found.append(f"{name}: missing; this environment wants one before anything is applied")
    if parameters.approve and not parameters.approved_by.strip():
        found.append("approved_by: missing; whoever approved the plan is named in the record")
    if type(parameters) is IntegrateServiceMesh and parameters.service_namespace not in parameters.members:
        found.append(f"service_namespace: {parameters.service_namespace!r} is not one of the members")
    if isinstance(parameters, IntegrateWithKourier):
        outside = [name for name in parameters.members if name in _OUTSIDE_BESIDE_KOURIER]
        found += [f"members: {name!r} stays outside of the mesh where Kourier serves" for name in outside]
    if type(parameters) is CreateIngressCertificates:
        found += _missing_files(parameters)
    return found


def _missing_files(parameters: CreateIngressCertificates) -> list[str]:
    source, found = parameters.certificate_source, []
    for name in ("valid_days", "root_valid_days"):
        if getattr(parameters, name) <= parameters.renew_before_days:
            said = f"{getattr(parameters, name)} is not more than renew_before_days ({parameters.renew_before_days})"
            found.append(f"{name}: {said}: each run would renew what the run before has made")
    if source == "files":
        for name in ("key_file", "chain_file"):
            if not getattr(parameters, name):
                found.append(f"{name}: missing; certificate_source files wants one")
    if source in ("create", "request") and not parameters.certificates_dir:
        found.append(f"certificates_dir: missing; certificate_source {source} keeps its files there")
    return found


def of_notebook(model: type[Parameters], given: Mapping[str, object]) -> dict[str, object]:
    """The values that a notebook's cells have bound, out of its ``globals()``.

    In a fresh kernel every name that the notebook binds before its first import is a parameter, so a misspelt one,
    which papermill only warns about, is found. When cells are run again the kernel holds other names too, and only
    the declared ones are read.
    """
    names = [name for name in given if not name.startswith("_") and name not in _KERNEL_NAMES]
    if "open_runbook" in given:
        names = [name for name in names if name in model.model_fields]
    return {name: given[name] for name in names}


# --- reading -----------------------------------------------------------------------------------------------------


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that is given twice is an error, not a silent choice, and every error is YAML's."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # a date that the calendar lacks, or !!bool maybe
            said = f"{_shown(node.value)} cannot be read ({error}); put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from error

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A number as everybody reads it; YAML 1.1 takes 0600 for 384, and 12:30:45 for 45045."""
        if not _DECIMAL.fullmatch(node.value):
            said = f"{_shown(node.value)} is a number to YAML, and not the one that it looks like: write digits alone"
            raise yaml.constructor.ConstructorError(None, None, f"{said}, or text in quotes", node.start_mark)
        return int(super().construct_yaml_int(node))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a name has to be text; a template in braces goes in quotes", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_UniqueKeys.add_constructor("tag:yaml.org,2002:int", _UniqueKeys.construct_yaml_int)


def _load(text: str) -> Any:
    """What a YAML text says.

    Raises:
        yaml.YAMLError: it is none, or says what cannot be.
    """
    try:
        return yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 a SafeLoader
    except RecursionError as error:
        raise yaml.YAMLError("brackets are nested too deep") from error


def read_file(path: Path) -> dict[str, Any]:
    """The names and values of one parameters file.

    Raises:
        ParameterError: the file is missing, unreadable, not UTF-8, not YAML, or not a mapping.
    """
    attempted = f"reading the parameters file {path}"
    try:
        content = _load(input_file.read(path).decode("utf-8"))
    except FileNotFoundError as error:
        raise ParameterError(attempted, "there is no such file", "see parameters/example for what it holds") from error
    except OSError as error:
        raise ParameterError(attempted, error.strerror or str(error), "give a readable file") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParameterError(attempted, " ".join(str(error).split()), "write it as YAML in UTF-8") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ParameterError(attempted, "it holds no mapping of names to values", "write lines of the form NAME: VALUE")
    return content


def from_text(model: type[Parameters], name: str, text: str) -> object:
    """The value that a person typed for one parameter on the command line.

    Text stays as typed; numbers, true or false and lists are read for parameters that want them.
    """
    plain = _plain_type(model.model_fields[name])
    if plain is str:
        return text
    if plain is list and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return _load(text)
    except yaml.YAMLError:
        return text


def cell_source(model: type[Parameters]) -> str:
    """The ``parameters`` cell of the runbook: one line for each parameter, with its default and its help."""
    lines = []
    for name, field in model.model_fields.items():
        allowed = allowed_values(field)
        words = field.description or ""
        help_text = words if all(value in words for value in allowed) else f"{', '.join(allowed)}: {words}"
        default = repr(field.default).replace("'", '"')
        lines.append(f"{name}: {_plain_type(field).__name__} = {default}  # {help_text}")
    return "\n".join(lines)
