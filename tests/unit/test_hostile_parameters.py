"""Hostile and broken input that needs no server: each case says what has to come of it.

What is refused is refused in words: the parameter or the file is named, nothing of it can move the cursor or fill the
screen, and nothing has been executed. What ``test_parameters.py`` and ``test_certificates.py`` ask is not asked again.
"""

from __future__ import annotations

import base64
import datetime as dt
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.conftest import WILDCARD, Situate
from tests.unit.test_parameters import FIELDS, PATHS, accepted, refusal

from runbooks import certificate_folder, certificates, input_file, parameters
from runbooks.certificates import Pair, Rules
from runbooks.errors import CertificateError, ParameterError, RunbookError, visible
from runbooks.parameters import CreateIngressCertificates, IntegrateServiceMesh, Parameters
from runbooks.procedure import SECTIONS

LONGEST_SAID = 2000  # characters; nobody reads more, and a record keeps it
FREE_TEXT = ("reason", "expected_body")
TEXT_FIELDS = [(model, name) for model, name in FIELDS if parameters.wanted(model.model_fields[name]) == "text"]
each_text = pytest.mark.parametrize(
    ("model", "name"), TEXT_FIELDS, ids=[f"{model.section}-{name}" for model, name in TEXT_FIELDS]
)


def harmless(said: str) -> bool:
    """Whether a terminal shows it as it is, in a few lines."""
    return len(said) < LONGEST_SAID and said == visible(said)


def refused(model: type[Parameters], **values: Any) -> str:
    """The whole message of a refusal, which a terminal can show."""
    with pytest.raises(ParameterError) as caught:
        accepted(model, **values)
    assert harmless(str(caught.value))
    assert "nothing was changed" in str(caught.value)
    return str(caught.value)


# --- text in every parameter that takes text ---------------------------------------------------------------------

# free text keeps them all but half a character; all other text refuses them, by the character's number
HIDDEN = {
    "newline": ("CHG\n1", "U+000A"),
    "tab": ("CHG\t1", "U+0009"),
    "escape": ("\x1b[2J", "U+001B"),
    "null": ("a\x00b", "U+0000"),
    "right to left": ("a\u202eb", "U+202E"),
    "isolate": ("a\u2067b", "U+2067"),
    "zero width": ("pro\u200bd", "U+200B"),
    "no-break blank": ("prod\u00a0a", "U+00A0"),
    "thin blank": ("prod\u2009a", "U+2009"),
    "variation selector": ("prod\ufe0f", "U+FE0F"),
    "a filler drawn as nothing": ("prod\u3164", "U+3164"),
    "a tag of the other planes": ("prod\U000e0041", "U+E0041"),
}


@pytest.mark.parametrize("case", HIDDEN)
@each_text
def test_what_cannot_be_seen_is_kept_in_free_text_and_refused_elsewhere(
    model: type[Parameters], name: str, case: str
) -> None:
    text, number = HIDDEN[case]
    if name in FREE_TEXT:
        assert text == getattr(accepted(model, **{name: text}), name)
        return
    said = refused(model, **{name: text})
    assert f"{name}: " in said
    # a parameter with a pattern of its own, or a choice, refuses it anyway
    assert number in said or "is not valid here" in said or "wanted one of" in said


@each_text
def test_half_a_character_is_refused_everywhere_since_no_file_could_hold_it(model: type[Parameters], name: str) -> None:
    assert f"{name}: " in refused(model, **{name: "a\ud800"})


@each_text
def test_a_huge_text_is_refused_and_shown_in_short(model: type[Parameters], name: str) -> None:
    assert f"{name}: '{'x' * 50}" in refused(model, **{name: "x" * 1_000_000})


AS_TYPED = ["it's", 'say "no"', "{}", "{0.__class__}", "%s%n", "$(id)", "`id`", "; rm", "[red]", "\\n", "漢字　全角"]


@pytest.mark.parametrize("text", AS_TYPED)
@each_text
def test_quotes_braces_and_percent_are_text_like_any_other(model: type[Parameters], name: str, text: str) -> None:
    if name in (*FREE_TEXT, "change_ticket", "organization", "context"):
        assert text == getattr(accepted(model, **{name: text}), name)
    assert harmless(problems_of(model, name, text))


def problems_of(model: type[Parameters], name: str, text: str) -> str:
    """What is wrong with one text; where nothing is, it is kept as it was typed."""
    values = {"context": "admin@prod-a", "certificates_dir": "/certificates", name: text}
    found = [said for said in parameters.problems(model, values) if said.startswith(f"{name}: ")]
    if not found and name not in PATHS:  # ~ and ${HOME} are expanded
        assert text == getattr(model.model_validate(values), name)
    return str(RunbookError("reading", "; ".join(found)))


@given(where=st.sampled_from(TEXT_FIELDS), text=st.text(st.characters(), max_size=30))
def test_any_text_is_kept_as_typed_or_refused_by_name(where: tuple[type[Parameters], str], text: str) -> None:
    assert harmless(problems_of(*where, text))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a number without end": ({"timeout_s": 1 << 40_000}, "timeout_s: a number of 40,001 bits"),
    "text that is such a number": ({"context": 1 << 40_000}, "context: a number of 40,001 bits"),
    "not a number": ({"timeout_s": float("nan")}, "timeout_s: nan is a number; wanted a whole number"),
    "infinity": ({"timeout_s": float("inf")}, "timeout_s: inf is a number; wanted a whole number"),
    "infinity as text": ({"change_ticket": float("-inf")}, "change_ticket: -inf is a number"),
    "a hundred thousand wrong names": ({"members": [1] * 100_000}, "and 99,980 values more are wrong"),
    "lists in lists": ({"members": [[[[["x"] * 50] * 50] * 50] * 50]}, "members: item 0"),
    "a date": ({"change_ticket": dt.date(2026, 1, 1)}, "change_ticket: datetime.date(2026, 1, 1) is date"),
    "bytes": ({"organization": b"Example"}, "organization: b'Example' is bytes; wanted text"),
    "a set": ({"members": {"a"}}, "members: {'a'} is set; wanted a list of names"),
    "a name that is a page": ({"x" * 100_000: 1}, "no such parameter"),
    "a name that clears the screen": ({"\x1b[2Jmode": 1}, r"\x1b[2Jmode: runbook 6.4.2 has no such parameter"),
    "a name turned round": ({"edom\u202e": 1}, r"edom\u202e: runbook 6.4.2 has no such parameter"),
    "other digits": ({"serverless_version": "١.٣٠"}, "serverless_version: '١.٣٠' is not valid here"),
    "an organization without letters": ({"organization": ""}, "organization: '': value should have at least 1"),
    "a longer organization than X.509 knows": ({"organization": "x" * 65}, "organization: 'xxx"),
    "a root whose name would be left out": ({"root_common_name": "x" * 65}, "root_common_name: 'xxx"),
    "up and away": ({"certificate_secret": "../../etc/passwd"}, "certificate_secret: '../../etc/passwd'"),
    "up and away, as a member": ({"members": ["../kube-system"]}, "members: '../kube-system'"),
    "a query in a name": ({"mesh_namespace": "a?dryRun=All"}, "mesh_namespace: 'a?dryRun=All'"),
    "a path through others' home": ({"key_file": "~a/../../etc/passwd"}, "key_file: '~a/../../etc/passwd' names"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_value_that_cannot_be_is_refused_in_short(case: str) -> None:
    values, words = WRONG[case]
    assert words in refused(CreateIngressCertificates, **values)


def test_what_a_variable_brings_into_a_path_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDER", "/certificates\x1b[2J\n")
    assert "U+001B" in refusal(CreateIngressCertificates, certificates_dir="${FOLDER}")


# --- parameters files --------------------------------------------------------------------------------------------

SURPRISES: dict[str, tuple[str, str]] = {
    "octal": ("timeout_s: 0600\n", "'0600' is a number to YAML, and not the one that it looks like"),
    "sixties": ("timeout_s: 12:30:45\n", "'12:30:45' is a number to YAML"),
    "hexadecimal": ("timeout_s: 0x10\n", "'0x10' is a number to YAML"),
    "underscores": ("timeout_s: 6_00\n", "'6_00' is a number to YAML"),
    "hexadecimal without end": (f"timeout_s: 0x{'f' * 20_000}\n", "is a number to YAML"),
    "digits without end": (f"timeout_s: {'9' * 20_000}\n", "cannot be read"),
    "brackets without end": (f"members: {'[' * 5_000}", "brackets are nested too deep"),
    "closed brackets": (f"members: {'[' * 5_000}{']' * 5_000}", "brackets are nested too deep"),
    "merged keys": ("<<: {mode: apply}\n", "merge"),
    "two documents": ("mode: plan\n---\nmode: apply\n", "expected a single document"),
    "a key that holds itself": ("? &a [*a]\n: 1\n", "recursive"),
    "broken base64": ('reason: !!binary "a"\n', "base64"),
    "a key twice, once in quotes": ('mode: plan\n"mode": apply\n', "the key 'mode' is there twice"),
    "UTF-16": ("\ufeffmode".encode("utf-16").decode("latin-1"), ""),
}


def parameters_file(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("case", SURPRISES)
def test_what_yaml_reads_as_something_else_is_refused_by_its_file(case: str, tmp_path: Path) -> None:
    content, words = SURPRISES[case]
    path = parameters_file(tmp_path, content)
    with pytest.raises(ParameterError) as caught:
        parameters.read_file(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert harmless(str(caught.value))


TYPES_OF_YAML: dict[str, tuple[str, str]] = {
    "no": ("service_name: no\n", "service_name: False is true or false; wanted text"),
    "1.30": ("serverless_version: 1.30\n", "put it in quotes"),
    "not a number": ("timeout_s: .nan\n", "timeout_s: nan is a number"),
    "infinity": ("timeout_s: -.inf\n", "timeout_s: -inf is a number"),
    "a date": ("change_ticket: 2026-01-01\n", "change_ticket: datetime.date(2026, 1, 1)"),
    "binary": ("reason: !!binary aGk=\n", "reason: b'hi' is bytes; wanted text"),
    "a set": ("members: !!set {shop}\n", "members: {'shop'} is set"),
    "nothing": ("context: ~\n", "context: missing"),
    "a list that holds itself": ("members: &a [*a]\n", "members: item 0"),
    "a laugh": ("members: [&a [x, x], [*a, *a]]\n", "members: item 0"),
    "half a character": ('reason: "\\ud800"\n', "reason: '\\ud800' holds half of a character"),
}


@pytest.mark.parametrize("case", TYPES_OF_YAML)
def test_what_yaml_makes_of_a_word_is_refused_by_the_parameter(case: str, tmp_path: Path) -> None:
    content, words = TYPES_OF_YAML[case]
    values = {"context": "admin@prod-a", **parameters.read_file(parameters_file(tmp_path, content))}
    with pytest.raises(ParameterError) as caught:
        parameters.check(IntegrateServiceMesh, values)
    assert words in str(caught.value)
    assert harmless(str(caught.value))


@pytest.mark.parametrize("text", ["0600", "12:30:45", "0x10", "1_0", "[" * 5_000, "0x" + "f" * 20_000, "\x1b[2J"])
def test_what_is_typed_for_a_number_is_one_or_is_refused(text: str) -> None:
    found = parameters.from_text(IntegrateServiceMesh, "timeout_s", text)
    assert "timeout_s: " in refused(IntegrateServiceMesh, timeout_s=found)


def _directory(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 1024 * 1024)


def _of_others(path: Path) -> None:
    path.write_text("mode: plan\n")
    path.chmod(0)


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a directory": (_directory, "Is a directory"),
    "a pipe that nobody writes into": (_pipe, "it is not a plain file"),
    "a device without end": (_device, "it is not a plain file"),
    "a socket": (_socket, "No such device or address"),
    "a link to itself": (_loop, "Too many levels of symbolic links"),
    "100 MB": (_huge, "it has 104,857,600 bytes, and more than 4,194,304 are not read"),
    "a file of others": (_of_others, "Permission denied"),
}
READERS: dict[str, tuple[Callable[[Path], object], type[RunbookError]]] = {
    "parameters": (parameters.read_file, ParameterError),
    "key_file": (lambda path: certificate_folder.read_file("key_file", str(path)), CertificateError),
    "certificates_dir": (lambda path: certificate_folder.read(str(path.parent), [path.name]), CertificateError),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", FILES)
def test_what_is_no_file_to_read_is_said_at_once(case: str, reader: str, tmp_path: Path) -> None:
    make, words = FILES[case]
    if make is _of_others and os.geteuid() == 0:
        pytest.skip("root may read every file")
    read, kind = READERS[reader]
    path = tmp_path / "given"
    make(path)
    with pytest.raises(kind) as caught:
        read(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.remedy


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "given"
    path.write_bytes(b"#" * input_file.MOST_BYTES)
    assert {} == parameters.read_file(path)


# --- certificates that others bring ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def issue(root: Pair, now: dt.datetime) -> Callable[..., bytes]:
    """A certificate of the root's, in any shape."""
    issuer = certificates.load_chain(root.chain, "root")[0]
    signer = serialization.load_pem_private_key(root.key, None)

    def make(
        key: Any,
        names: list[str] | None = None,
        subject: str = "shop",
        *,
        begins: dt.timedelta = dt.timedelta(days=-1),
        ends: dt.timedelta = dt.timedelta(days=90),
    ) -> bytes:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names or [WILDCARD]])
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(alternatives, critical=False)
        )
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]

    return make


def pem(key: Any, password: bytes = b"") -> bytes:
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how))


EC, EC_384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
MANY = [f"a{number}.example.com" for number in range(999)]
Issue = Callable[..., bytes]
PEM_BAG = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

# chain, key, and what is said of them; nothing where they are taken
BROUGHT: dict[str, tuple[Callable[[Issue, Pair], tuple[bytes, bytes]], str]] = {
    "RSA": (lambda issue, _: (issue(RSA), pem(RSA)), ""),
    "EC": (lambda issue, _: (issue(EC), pem(EC)), ""),
    "1,000 names, the wildcard last": (lambda issue, _: (issue(EC, [*MANY, WILDCARD]), pem(EC)), ""),
    "with its root": (lambda issue, root: (issue(EC) + root.chain, pem(EC)), ""),
    "999 names, none of them ours": (lambda issue, _: (issue(EC, MANY), pem(EC)), "and 989 more"),
    "EC on another curve": (lambda issue, _: (issue(EC_384), pem(EC_384)), "P-256 (secp256r1) only"),
    "Ed25519": (lambda issue, _: (issue(ED25519), pem(ED25519)), "use an RSA or an EC key"),
    "Ed25519 with an EC key": (lambda issue, _: (issue(ED25519), pem(EC)), "does not belong to the certificate"),
    "another's key": (lambda issue, _: (issue(EC), pem(RSA)), "does not belong to the certificate"),
    "an encrypted key": (lambda issue, _: (issue(EC), pem(EC, b"secret")), "the key is encrypted"),
    "a public key": (
        lambda issue, _: (issue(EC), b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
        "reading the private key",
    ),
    "the certificate for the key": (lambda issue, _: (issue(EC), issue(EC)), "reading the private key"),
    "the key for the certificate": (lambda _, __: (pem(EC), pem(EC)), "reading the certificates"),
    "no key": (lambda issue, _: (issue(EC), b""), "reading the private key"),
    "no certificate": (lambda _, __: (b"", pem(EC)), "reading the certificates"),
    "garbage": (lambda _, __: (os.urandom(5000), pem(EC)), "reading the certificates"),
    "garbage in PEM": (lambda _, __: (PEM_BAG, pem(EC)), "reading the certificates"),
    "half a certificate": (lambda issue, _: (issue(EC)[:-200], pem(EC)), "reading the certificates"),
    "DER": (
        lambda issue, _: (
            x509.load_pem_x509_certificate(issue(EC)).public_bytes(serialization.Encoding.DER),
            pem(EC),
        ),
        "-----BEGIN CERTIFICATE-----",
    ),
    "expired": (lambda issue, _: (issue(EC, ends=dt.timedelta(hours=-1)), pem(EC)), "expired on"),
    "not yet valid": (lambda issue, _: (issue(EC, begins=dt.timedelta(days=1)), pem(EC)), "is not valid before"),
    "the root first": (lambda issue, root: (root.chain + issue(EC), pem(EC)), "leaf first, root last"),
    "a subject that clears the screen": (
        lambda issue, _: (issue(EC, subject="\x1b[2Jshop\u202e", ends=dt.timedelta(hours=-1)), pem(EC)),
        r"\x1b[2Jshop\u202e expired on",
    ),
}


@pytest.mark.parametrize("case", BROUGHT)
def test_a_certificate_that_others_bring_is_taken_or_its_fault_is_said(
    case: str, issue: Issue, root: Pair, situate: Situate
) -> None:
    make, words = BROUGHT[case]
    chain, key = make(issue, root)
    files = {"chain_file": chain, "key_file": key, "trust_anchor": root.chain}
    named = {name: f"/given/{name}" for name in files}
    situation = situate("6.4.2", certificate_source="files", given_files=files, **named)
    found = SECTIONS["6.4.2"].prepared(situation)
    if not words:
        assert Pair(chain, key) == found.served
        return
    assert isinstance(found, CertificateError)
    assert words in str(found)
    assert "/given/key_file" in str(found) or "/given/chain_file" in str(found)
    assert "/given/key_file" in str(found) or "reading the private key" not in str(found)
    assert harmless(str(found))
    assert "PRIVATE" not in str(found)


@pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")  # a warning is no crash
@given(data=st.data())
def test_a_certificate_in_which_bytes_are_wrong_is_judged_or_refused(
    data: st.DataObject, root: Pair, leaf: Pair, rules: Rules, now: dt.datetime
) -> None:
    whole = x509.load_pem_x509_certificate(leaf.chain).public_bytes(serialization.Encoding.DER)
    der = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    broken = _in_pem(bytes(der))
    anchors = certificates.load_chain(root.chain, "root")
    found = certificates.problems(Pair(broken, leaf.key), WILDCARD, anchors, now, origin="chain_file")
    assert (found == []) is (bytes(der) == whole)


def _in_pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


# --- what is said ------------------------------------------------------------------------------------------------


@given(st.text(st.characters()), st.text(st.characters()))
def test_no_message_moves_the_cursor_or_cannot_be_written(attempted: str, said: str) -> None:
    told = str(RunbookError(attempted, said, "do something"))
    assert "\x1b" not in told
    assert "\u202e" not in told
    assert told == told.encode().decode()


def test_a_page_that_a_server_answers_with_is_cut() -> None:
    assert len(str(RunbookError("applying", "<p>" * 1_000_000))) < 21_000
