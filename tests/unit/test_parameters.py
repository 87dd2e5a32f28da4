"""The typed parameters: what is accepted as typed, what is refused, and in which words."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import papermill.translators
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat import NotebookNode

from runbooks import parameters
from runbooks.errors import ParameterError
from runbooks.parameters import CreateIngressCertificates, IntegrateServiceMesh, IntegrateWithKourier, Parameters
from runbooks.procedure import SECTIONS

MODELS = [section.model for section in SECTIONS.values()]
# what all runbooks share once, then what each takes besides
FIELDS = [(IntegrateServiceMesh, name) for name in Parameters.model_fields] + [
    (model, name) for model in MODELS for name in model.model_fields if name not in Parameters.model_fields
]
CONTEXT = {"context": "admin@prod-a"}
REQUIRED: dict[str, dict[str, Any]] = {"6.4.2": {"certificates_dir": "/certificates"}}

each_model = pytest.mark.parametrize("model", MODELS, ids=[model.section for model in MODELS])
each_field = pytest.mark.parametrize(
    ("model", "name"), FIELDS, ids=[f"{model.section}-{name}" for model, name in FIELDS]
)


def accepted(model: type[Parameters], **values: Any) -> Parameters:
    return parameters.check(model, {**CONTEXT, **REQUIRED.get(model.section, {}), **values})


def refusal(model: type[Parameters], **values: Any) -> str:
    """What is said, one line; that it is a usage error and that nothing was changed goes for all of them."""
    with pytest.raises(ParameterError) as caught:
        accepted(model, **values)
    assert 64 == caught.value.exit_code
    assert f"reading the parameters of runbook {model.section}" == caught.value.attempted
    assert "correct them; nothing was changed" == caught.value.remedy
    return caught.value.said


# --- the schema itself -------------------------------------------------------------------------------------------


@each_model
def test_every_declared_default_is_accepted_once_the_required_ones_are_given(model: type[Parameters]) -> None:
    defaults = {name: field.default for name, field in model.model_fields.items()}
    assert accepted(model) == accepted(model, **(defaults | CONTEXT | REQUIRED.get(model.section, {})))


@each_field
def test_every_example_is_accepted(model: type[Parameters], name: str) -> None:
    value = parameters.example(model.model_fields[name])
    beside = {"service_namespace": value[0]} if name == "members" else {}
    beside |= {"members": [value]} if name == "service_namespace" else {}
    beside |= {"approved_by": "Sato"} if name == "approve" else {}
    assert name in accepted(model, **{name: value}, **beside).model_fields_set


@each_field
def test_every_parameter_says_what_it_wants(model: type[Parameters], name: str) -> None:
    field = model.model_fields[name]
    assert field.description
    assert parameters.wanted(field) in {
        "text",
        "a whole number",
        "true or false",
        "a list of names",
        "one of " + ", ".join(parameters.allowed_values(field)),
    }


@each_field
def test_a_misspelt_name_is_refused_with_the_nearest_one(model: type[Parameters], name: str) -> None:
    misspelt = name[:-1]
    assert f"{misspelt}: runbook {model.section} has no such parameter; {name}?" == refusal(model, **{misspelt: "x"})


@each_model
@given(name=st.text(min_size=1))
def test_any_unknown_name_is_refused(model: type[Parameters], name: str) -> None:
    found = parameters.unknown([name], model)
    assert (found == []) is (name in model.model_fields)
    shown = name if len(name) <= 64 else f"{name[:64]}…"
    assert all(said.startswith(f"{shown}: runbook {model.section} has no such parameter") for said in found)


def test_a_huge_unknown_name_is_not_repeated_whole() -> None:
    (said,) = parameters.unknown(["x" * 100_000], CreateIngressCertificates)
    assert len(said) < 200


def test_a_name_like_no_other_is_refused_without_a_guess() -> None:
    assert "xyzzy: runbook 6.4.2 has no such parameter" == refusal(CreateIngressCertificates, xyzzy=1)


def test_a_parameter_of_another_runbook_is_refused() -> None:
    assert refusal(IntegrateServiceMesh, valid_days=90).startswith("valid_days: runbook 6.4.3 has no such parameter")


# --- types -------------------------------------------------------------------------------------------------------

TYPES = {"text": str, "a whole number": int, "true or false": bool, "a list of names": list}
ODD: list[object] = [None, True, 1, 1.3, "text", "1", "true", ["a"], {"a": 1}, b"bytes", ("a",)]


@each_field
def test_nothing_is_coerced(model: type[Parameters], name: str) -> None:
    wanted = TYPES.get(parameters.wanted(model.model_fields[name]), str)
    for value in ODD:
        if type(value) is not wanted:
            assert f"{name}: " in refusal(model, **{name: value}), repr(value)


@pytest.mark.parametrize("name", ["serverless_version", "mesh_version"])
def test_a_version_that_yaml_read_as_a_number_is_refused_and_quotes_are_named(name: str) -> None:
    example = "1.30" if name == "serverless_version" else "2.3"
    assert (
        f"{name}: 1.3 is a number (YAML reads 1.30 as the number 1.3: put it in quotes); wanted text, "
        f"for example {example!r}"
    ) == (refusal(IntegrateServiceMesh, **{name: 1.30}))
    assert "1.30" == getattr(accepted(IntegrateServiceMesh, **{name: "1.30"}), name)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"mode": "dry-run"},
            "mode: 'dry-run' is text; wanted one of verify, plan, apply, for example 'plan'",
        ),
        ({"timeout_s": "600"}, "timeout_s: '600' is text; wanted a whole number, for example 600"),
        ({"timeout_s": True}, "timeout_s: True is true or false; wanted a whole number, for example 600"),
        (
            {"timeout_s": 0},
            "timeout_s: 0: input should be greater than or equal to 1, for example 600",
        ),
        (
            {"strict_documentation": "yes"},
            "strict_documentation: 'yes' is text; wanted true or false, for example False",
        ),
        ({"change_ticket": 31337}, "change_ticket: 31337 is a number; wanted text, for example 'CHG0031337'"),
        ({"members": "shop"}, "members: 'shop' is text; wanted a list of names, for example ['shop', 'billing']"),
        ({"members": ["default", 5]}, "members: item 1 (5) is not text"),
        ({"members": ["default", "Shop"]}, "members: 'Shop' is not valid here, for example ['shop', 'billing']"),
        (
            {"members": []},
            ("members: []: list should have at least 1 item after validation, not 0, for example ['shop', 'billing']"),
        ),
        ({"members": ["default", "shop", "shop"]}, "members: ['default', 'shop', 'shop'] names shop more than once"),
        ({"service_namespace": "shop"}, "service_namespace: 'shop' is not one of the members"),
        (
            {"ingress_address": "192.0.2.10"},
            "ingress_address: '192.0.2.10' is not valid here, for example '192.0.2.10:443'",
        ),
        (
            {"service_image": "an image"},
            (
                "service_image: 'an image' is not valid here, "
                "for example 'quay.io/openshift-knative/helloworld-go:latest'"
            ),
        ),
        ({"context": ""}, "context: missing; wanted a kubeconfig context or in-cluster, for example 'admin@prod-a'"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_wanted_and_an_example(values: dict[str, Any], said: str) -> None:
    assert said == refusal(IntegrateServiceMesh, **values)


def test_all_problems_are_named_at_once() -> None:
    said = refusal(CreateIngressCertificates, contxt="a", timeout_s="600", mode="dry-run", certificates_dir="here")
    assert [
        "contxt",
        "mode",
        "certificates_dir",
        "timeout_s",
    ] == [problem.partition(":")[0] for problem in said.split("; ") if ": " in problem]


@pytest.mark.parametrize("name", ["mesh_namespace", "service_name", "service_namespace", "certificate_secret"])
@pytest.mark.parametrize(
    "value", ["Upper", "under_score", "-a", "a-", "a b", "a\n", "", "x" * 64, "ａ", "../a", "a;b", "a'b"]
)
def test_names_are_what_kubernetes_takes(name: str, value: str) -> None:
    assert refusal(IntegrateServiceMesh, **{name: value}).startswith(f"{name}: {value!r}")


@pytest.mark.parametrize("domain", ["com", "*.apps.example.com", "apps..example.com", "apps.example.com.", "-a.b"])
def test_a_domain_is_written_without_wildcard_and_with_a_dot_inside(domain: str) -> None:
    assert refusal(CreateIngressCertificates, ingress_domain=domain).startswith(f"ingress_domain: {domain!r}")


@pytest.mark.parametrize("version", ["1", "1.30.0.1", "v1.30", "1.x", "1.30-rc1", " 1.30"])
def test_a_version_has_two_or_three_numbers(version: str) -> None:
    assert refusal(CreateIngressCertificates, serverless_version=version).startswith(
        f"serverless_version: {version!r} is not valid here"
    )


@pytest.mark.parametrize("address", ["192.0.2.10:99999", "192.0.2.10:65536", "192.0.2.10:0"])
def test_a_port_that_cannot_be_is_refused(address: str) -> None:
    assert refusal(IntegrateServiceMesh, ingress_address=address).startswith(f"ingress_address: {address!r}")


# --- text --------------------------------------------------------------------------------------------------------

TEXTS = [
    name
    for name, field in IntegrateServiceMesh.model_fields.items()
    if parameters.wanted(field) == "text" and name not in ("reason", "expected_body")
]


@pytest.mark.parametrize("name", TEXTS)
def test_a_placeholder_of_the_documented_text_is_refused(name: str) -> None:
    said = refusal(IntegrateServiceMesh, **{name: "<namespace>"})
    assert said.startswith(f"{name}: '<namespace>' still holds the placeholder <namespace> of the documented text")


def test_a_placeholder_in_a_list_is_refused() -> None:
    assert "members: '<namespace>' still holds the placeholder <namespace> of the documented text" == (
        refusal(IntegrateServiceMesh, members=["default", "<namespace>"])
    )


@pytest.mark.parametrize(
    "character",
    # a word joiner or a soft hyphen comes along when a name is copied out of a document
    [
        "\x00",
        "\x07",
        "\r",
        "\x1b",
        "\x7f",
        "\x85",
        "\u00ad",
        "\u200b",
        "\u200e",
        "\u202e",
        "\u2060",
        "\u2066",
        "\ufeff",
    ],
    ids=lambda character: f"U+{ord(character):04X}",
)
def test_invisible_characters_are_refused_in_names_and_kept_in_the_reason(character: str) -> None:
    said = refusal(IntegrateServiceMesh, context=f"admin{character}@prod-a", change_ticket=f"{character}CHG")
    assert [
        True,
        True,
    ] == [f"holds the invisible character U+{ord(character):04X}" in problem for problem in said.split("; ")]
    reason = f"because{character} <of this>"
    assert {"reason": reason, "expected_body": reason} == accepted(
        IntegrateServiceMesh, reason=reason, expected_body=reason
    ).model_dump(include={"reason", "expected_body"})


# --- paths -------------------------------------------------------------------------------------------------------

PATHS = ["kubeconfig", "certificates_dir", "trust_anchor", "key_file", "chain_file"]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setenv("CLUSTER", "prod-a")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/certificates", "/certificates"),
        ("~/certificates", "/home/alice/certificates"),
        ("${HOME}/certificates/${CLUSTER}", "/home/alice/certificates/prod-a"),
        ("${UNSET:-/srv}/certificates", "/srv/certificates"),
        ("${EMPTY:-/srv}/certificates", "/srv/certificates"),
        ("${HOME:-/srv}/certificates", "/home/alice/certificates"),
        ("${UNSET:-~}/certificates", "/home/alice/certificates"),
    ],
)
def test_home_and_environment_are_expanded_in_paths(name: str, given: str, expected: str) -> None:
    assert expected == getattr(accepted(CreateIngressCertificates, **{name: given}), name)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("given", ["certificates", "./certificates", "certificates/../other"])
def test_a_relative_path_is_refused_with_the_absolute_one_to_write(
    name: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"{name}: {given!r} is a relative path; write {Path(given).absolute()}" == (
        refusal(CreateIngressCertificates, **{name: given})
    )


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("/certificates/${UNSET}", "names the environment variable UNSET, which is not set"),
        ("/certificates/<environment>", "still holds the placeholder <environment> of the documented text"),
        ("/certificates/\u200b", "holds the invisible character U+200B"),
        ("~nobody-of-this-name/certificates", ""),
    ],
)
def test_a_path_that_cannot_be_expanded_is_refused(name: str, given: str, said: str) -> None:
    assert refusal(CreateIngressCertificates, **{name: given}).startswith(f"{name}: {given!r} {said}")


def test_the_trust_anchor_may_be_the_systems() -> None:
    assert "system" == accepted(CreateIngressCertificates, trust_anchor="system").trust_anchor


# --- what belongs together ---------------------------------------------------------------------------------------


def test_apply_wants_what_the_environment_demands() -> None:
    demands: dict[str, Any] = {"require_change_ticket": True, "require_reason": True}
    wanted = "missing; this environment wants one before anything is applied"
    for mode in ("verify", "plan"):
        assert mode == accepted(IntegrateServiceMesh, mode=mode, **demands).mode
    assert [
        "change_ticket: missing",
        "this environment wants one before anything is applied",
        "reason: missing",
        "this environment wants one before anything is applied",
    ] == refusal(IntegrateServiceMesh, mode="apply", **demands).split("; ")
    assert f"reason: {wanted}" == (
        refusal(IntegrateServiceMesh, mode="apply", change_ticket="CHG1", reason=" \t", **demands)
    )
    assert "new" == accepted(IntegrateServiceMesh, mode="apply", change_ticket="CHG1", reason="new", **demands).reason


@pytest.mark.parametrize("name", ["knative-serving", "knative-serving-ingress"])
def test_knatives_own_namespaces_stay_outside_of_the_mesh_where_kourier_serves(name: str) -> None:
    said = f"members: {name!r} stays outside of the mesh where Kourier serves"
    assert said == refusal(IntegrateWithKourier, members=["shop", name])
    assert ["shop", name] == accepted(IntegrateServiceMesh, members=["shop", name], service_namespace="shop").members


def test_knative_serving_always_joins_the_mesh_on_the_istio_path_and_only_there() -> None:
    given = {"members": ["shop", "default"]}
    assert ("knative-serving", "shop", "default") == accepted(IntegrateServiceMesh, **given).all_members
    assert ("shop", "default") == accepted(IntegrateWithKourier, **given).all_members


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("create", ["certificates_dir"]),
        ("request", ["certificates_dir"]),
        ("files", ["key_file", "chain_file"]),
        ("secret", []),
    ],
)
def test_each_source_of_a_certificate_wants_its_files(source: str, missing: list[str]) -> None:
    values = {"context": "admin@prod-a", "certificate_source": source}
    complete = values | dict.fromkeys(missing, "/given")
    assert dict.fromkeys(missing, "/given") == parameters.check(CreateIngressCertificates, complete).model_dump(
        include=set(missing)
    )
    for name in missing:
        with pytest.raises(ParameterError, match=f"{name}: missing; certificate_source {source} "):
            parameters.check(CreateIngressCertificates, {k: v for k, v in complete.items() if k != name})


@pytest.mark.parametrize("name", ["valid_days", "root_valid_days"])
def test_a_certificate_that_would_be_renewed_the_day_it_is_made_is_refused(name: str) -> None:
    # each run would renew it again, or refuse the root that the run before has made
    assert f"{name}: " in refusal(CreateIngressCertificates, **{name: 30, "renew_before_days": 30})


def test_a_root_without_a_name_is_refused() -> None:
    assert refusal(CreateIngressCertificates, root_common_name="").startswith("root_common_name: ")


# --- out of a notebook -------------------------------------------------------------------------------------------

KERNEL = dict.fromkeys(
    ["In", "Out", "get_ipython", "exit", "quit", "open", "_", "_1", "__name__", "__builtins__", "_ih"], object()
)


def of_notebook(given: dict[str, Any]) -> IntegrateServiceMesh:
    found = parameters.check(IntegrateServiceMesh, parameters.of_notebook(IntegrateServiceMesh, given))
    assert isinstance(found, IntegrateServiceMesh)
    return found


def test_every_name_in_a_fresh_kernel_is_a_parameter() -> None:
    values = {"context": "admin@prod-a", "members": ["default", "shop"]}
    assert accepted(IntegrateServiceMesh, **values) == of_notebook(KERNEL | values)
    with pytest.raises(ParameterError, match=r"memebers: runbook 6\.4\.3 has no such parameter; members\?"):
        of_notebook(KERNEL | values | {"memebers": ["shop"]})


def test_when_cells_run_again_only_declared_names_are_read() -> None:
    given = {"context": "admin@prod-a", "open_runbook": object(), "runbook": object(), "memebers": ["shop"]}
    assert accepted(IntegrateServiceMesh) == of_notebook(KERNEL | given)
    with pytest.raises(ParameterError, match="timeout_s: '1' is text"):
        of_notebook(KERNEL | given | {"timeout_s": "1"})


# --- files -------------------------------------------------------------------------------------------------------


def read(tmp_path: Path, content: str | bytes) -> dict[str, Any]:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return parameters.read_file(path)


def test_a_file_is_names_and_values_in_utf_8(tmp_path: Path) -> None:
    text = 'context: admin@prod-a\nserverless_version: "1.30"\nmembers: [default, shop]\nreason: 証明書の更新\n'
    assert {
        "context": "admin@prod-a",
        "serverless_version": "1.30",
        "members": ["default", "shop"],
        "reason": "証明書の更新",
    } == read(tmp_path, text)
    assert read(tmp_path, "") == read(tmp_path, "# nothing yet\n") == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("mode: plan\nmode: apply\n", "the key 'mode' is there twice"),
        ("a:\n  b: 1\n  b: 2\n", "the key 'b' is there twice"),
        ("a: [\n", "while parsing"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("- a\n- b\n", "it holds no mapping of names to values"),
        ("just text\n", "it holds no mapping of names to values"),
        ("1: a\n", "it holds no mapping of names to values"),
        ("reason: \ud83d".encode("utf-8", "surrogatepass"), "'utf-8' codec can't decode"),
        ("reason: 証明書".encode("euc-jp"), "'utf-8' codec can't decode"),
        ("reason: \x00\n", "unacceptable character"),
        # a template that nobody filled in
        ("context: {{ context }}\n", ""),
        ("? [a, b]\n: c\n", ""),
        # what YAML takes for a date, and the calendar does not
        ("change_ticket: 2024-13-45\n", ""),
    ],
)
def test_a_file_that_cannot_be_taken_is_refused_by_its_path(content: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError) as caught:
        read(tmp_path, content)
    assert f"reading the parameters file {tmp_path}/cluster.yaml" == caught.value.attempted
    assert said in caught.value.said
    assert caught.value.remedy


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="there is no such file"):
        parameters.read_file(tmp_path / "missing.yaml")
    with pytest.raises(ParameterError, match="Is a directory"):
        parameters.read_file(tmp_path)


# --- typed on the command line -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("context", "admin@prod-a", "admin@prod-a"),
        ("serverless_version", "1.30", "1.30"),
        ("change_ticket", "0031337", "0031337"),
        ("reason", "yes: [because", "yes: [because"),
        ("mode", "apply", "apply"),
        ("timeout_s", "900", 900),
        ("timeout_s", "soon", "soon"),
        ("timeout_s", "[", "["),
        ("timeout_s", "{{ timeout }}", "{{ timeout }}"),
        ("timeout_s", "2024-13-45", "2024-13-45"),
        ("strict_documentation", "true", True),
        ("strict_documentation", "false", False),
        ("members", "shop,billing", ["shop", "billing"]),
        ("members", " shop , billing, ", ["shop", "billing"]),
        ("members", "shop", ["shop"]),
        ("members", "[shop, billing]", ["shop", "billing"]),
        ("members", "['1.30']", ["1.30"]),
    ],
)
def test_text_stays_as_typed_and_the_rest_is_read(name: str, text: str, expected: object) -> None:
    found = parameters.from_text(IntegrateServiceMesh, name, text)
    assert (type(expected), expected) == (type(found), found)


pieces = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        ": ",
        ", ",
        "? ",
        "- ",
        "&a ",
        "*a",
        "!!bool ",
        "!!int ",
        "'",
        '"',
        "#",
        "~",
        "\n",
        "a",
        "2024-13-45",
    ]
)


@given(st.sampled_from(["timeout_s", "members", "strict_documentation"]), st.lists(pieces, max_size=6).map("".join))
def test_whatever_is_typed_is_read_or_refused_in_words(name: str, text: str) -> None:
    with contextlib.suppress(ParameterError):
        accepted(IntegrateServiceMesh, **{name: parameters.from_text(IntegrateServiceMesh, name, text)})


@each_field
def test_every_default_can_be_typed(model: type[Parameters], name: str) -> None:
    default = model.model_fields[name].default
    text = default if isinstance(default, str) else json.dumps(default)
    assert default == parameters.from_text(model, name, text)


# --- the notebook's cell -----------------------------------------------------------------------------------------


@each_model
def test_the_cell_is_python_that_leaves_the_defaults(model: type[Parameters]) -> None:
    bound: dict[str, Any] = {}
    exec(compile(parameters.cell_source(model), "parameters", "exec"), bound)  # what a kernel does with the cell
    del bound["__builtins__"], bound["__annotations__"]
    assert {name: field.default for name, field in model.model_fields.items()} == bound


@each_model
def test_papermill_reads_each_line_of_the_cell_as_one_parameter(model: type[Parameters]) -> None:
    source = parameters.cell_source(model)
    inspected = papermill.translators.PythonTranslator.inspect(NotebookNode(source=source))
    assert source.count("\n") + 1 == len(inspected) == len(model.model_fields)
    for found, (name, field) in zip(inspected, model.model_fields.items(), strict=True):
        assert (
            name,
            TYPES.get(parameters.wanted(field), str).__name__,
        ) == (found.name, found.inferred_type_name)
        assert (field.description or "") in found.help
        assert all(value in found.help for value in parameters.allowed_values(field))
