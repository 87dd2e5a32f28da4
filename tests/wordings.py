"""What the library says where something is wrong, read out of its source.

An error, a precondition and a proof are each worded in one call. Its arguments are followed to where the words are
written: through variables, branches, f-strings and the functions that make them. What is known at run time only stands
as a hole that bears the name it has in the source.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from runbooks.checks.check import Check
from runbooks.errors import RunbookError
from runbooks.readiness import State
from runbooks.record.verification import REMEDIES, Found
from runbooks.verdicts import Checked, Finding, Proof, Verdict
from runbooks.versions import Version
from runbooks_sandbox.binaries import BinariesUnavailable
from runbooks_sandbox.state import SandboxError

LIB = Path(__file__).parents[1] / "lib"
ERRORS = (RunbookError, SandboxError, BinariesUnavailable)
TOLD = (*ERRORS, Finding, Checked, Found)
OPEN, CLOSE = "\x01", "\x02"  # around a hole
_GOOD = (Verdict.MET, Verdict.WAITING, Proof.PROVEN, Proof.SKIPPED)
_DEEPEST = 8
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, eq=False)
class Source:
    """A module with its text as a tree."""

    module: ModuleType
    tree: ast.Module
    parents: Mapping[ast.AST, ast.AST]

    @cached_property
    def calls(self) -> list[ast.Call]:
        """Everything that is called in it."""
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """What a node stands in, from the inside out."""
        while found := self.parents.get(node):
            yield found
            node = found


@dataclass(frozen=True)
class Place:
    """Where a name is read: the node that reads it, and what its function was called with."""

    source: Source
    node: ast.AST
    given: Mapping[str, tuple[ast.expr, Place]] = field(default_factory=dict)
    depth: int = 0

    @property
    def function(self) -> ast.FunctionDef | None:
        """The innermost function around it."""
        return next((one for one in self.source.around(self.node) if isinstance(one, _FUNCTIONS)), None)  # type: ignore[return-value]


@dataclass(frozen=True)
class Wording:
    """One place at which something wrong is put into words.

    Args:
        kind: what is made there: a class of errors, ``Finding`` or ``Checked``.
        title: what was attempted, or what is asked for or checked.
        said: what is found to be wrong, one text for each way in which it comes about.
        remedy: what to do.
        see: the section whose runbook fixes it.
        module: the module that words it.
        line: the line at which it is worded; where a function makes what its callers word, the caller's.
        made: the line at which it is made, after the module.
        verdict: how a precondition or a proof came out.
    """

    kind: type
    title: tuple[str, ...]
    said: tuple[str, ...]
    remedy: tuple[str, ...]
    see: tuple[str, ...]
    module: str
    line: int
    made: str
    verdict: str = ""


@dataclass(frozen=True)
class Raised:
    """One statement that raises.

    Args:
        kind: the class that is raised; None where it raises again what was made elsewhere.
        said: the texts that it is given; none where they are known at run time only.
        module: the module that raises.
        line: the line of the statement.
    """

    kind: type | None
    said: tuple[str, ...]
    module: str
    line: int


def raised(found: Iterable[Source] | None = None) -> list[Raised]:
    """Every statement of the library that raises."""
    return [
        _raised(node, source)
        for source in found or sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Raise)
    ]


def _raised(node: ast.Raise, source: Source) -> Raised:
    kind, said = None, []
    if node.exc is not None:
        called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        kind = look_up(called, source) or getattr(builtins, getattr(called, "id", ""), None)
        kind = kind if isinstance(kind, type) and issubclass(kind, BaseException) else None
    if kind and isinstance(node.exc, ast.Call):
        place = Place(source, node.exc)
        given = [one for one in _arguments(node.exc) if not isinstance(one, ast.Constant) or isinstance(one.value, str)]
        said = [text for one in given for text in words(one, replace(place, node=one)) if not is_hole(text)]
    return Raised(kind, tuple(dict.fromkeys(said)), source.module.__name__, node.lineno)


def source_of(module: ModuleType, text: str) -> Source:
    """A module with its text as a tree."""
    tree = ast.parse(text)
    return Source(module, tree, {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)})


@cache
def sources() -> tuple[Source, ...]:
    """Every module of the library and the sandbox."""
    paths = sorted(LIB.rglob("*.py"))
    names = [".".join(path.relative_to(LIB).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return tuple(source_of(importlib.import_module(n), p.read_text()) for n, p in zip(names, paths, strict=True))


@cache
def wordings(found: tuple[Source, ...] = ()) -> tuple[Wording, ...]:
    """Every place of the library that says that something is wrong.

    Args:
        found: the modules to look in; all where it is left out.
    """
    everything = found or sources()
    return tuple(
        wording
        for source in everything
        for call in source.calls
        if (kind := made(call, source))
        for place in _places(call, source, everything)
        for wording in _worded(call, kind, place)
    )


def made(call: ast.Call, source: Source) -> type | None:
    """The class of errors or judgements that a call makes; None where it makes another thing."""
    called = look_up(call.func, source)
    return called if isinstance(called, type) and issubclass(called, TOLD) else None


def look_up(node: ast.expr, source: Source) -> Any:
    """The object that a name of a module stands for; None where it is bound at run time only."""
    if isinstance(node, ast.Name) and node.id == "cls":
        around = next((one for one in source.around(node) if isinstance(one, ast.ClassDef)), None)
        return getattr(source.module, around.name, None) if around else None
    if isinstance(node, ast.Name):
        return getattr(source.module, node.id, None)
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
            around = next((one for one in source.around(node) if isinstance(one, ast.ClassDef)), None)
            return getattr(getattr(source.module, around.name, None), node.attr, None) if around else None
        return getattr(look_up(node.value, source), node.attr, None)
    return None


@cache
def _methods() -> Mapping[str, list[FunctionType]]:
    """The methods of the library's classes by their names."""
    found: dict[str, list[FunctionType]] = {}
    for source in sources():
        for node in source.tree.body:
            for part in node.body if isinstance(node, ast.ClassDef) else ():
                owner = getattr(source.module, getattr(node, "name", ""), None)
                if isinstance(part, ast.FunctionDef) and isinstance(
                    known := getattr(owner, part.name, None), FunctionType
                ):
                    found.setdefault(part.name, []).append(known)
    return found


def callee(call: ast.Call, source: Source) -> Any:
    """What a call calls; of an object that is bound at run time, the only method of that name."""
    if (known := look_up(call.func, source)) is not None or not isinstance(call.func, ast.Attribute):
        return known
    named = _methods().get(call.func.attr, [])
    return named[0] if len(named) == 1 else None


def _bound(called: Any, call: ast.Call) -> dict[str, ast.expr]:
    """The arguments of a call by the names of its parameters."""
    names = list(inspect.signature(called).parameters)
    if isinstance(call.func, ast.Attribute) and names[:1] == ["self"]:
        names = names[1:]
    return dict(zip(names, call.args, strict=False)) | {word.arg: word.value for word in call.keywords if word.arg}


def _places(call: ast.Call, source: Source, everything: tuple[Source, ...], depth: int = 0) -> Iterator[Place]:
    """A call in each of the contexts in which its function passes on what it was given: one for each caller."""
    place = Place(source, call)
    function = place.function
    called = _object(function, source) if function else None
    if function is None or not isinstance(called, FunctionType) or not _makes(function, source) or depth > _DEEPEST:
        yield place
        return
    if titles := [ast.Constant(title) for title in _titles(called)]:
        for title in titles:
            yield replace(place, given={function.args.args[0].arg: (title, place)})
        return
    handed = {name.arg for name in (*function.args.args, *function.args.kwonlyargs) if _is_text(name)}
    if not any(isinstance(one, ast.Name) and one.id in handed for one in _arguments(call)):
        yield place
        return
    callers = _callers(everything).get(called, [])
    if not callers:
        yield place
    for caller, other in callers:
        for outer in _places(caller, other, everything, depth + 1):
            given = _defaults(function, place) | {n: (v, outer) for n, v in _bound(called, caller).items()}
            yield replace(place, given=given)


def _is_text(name: ast.arg) -> bool:
    return isinstance(name.annotation, ast.Name) and name.annotation.id == "str"


@cache
def _callers(everything: tuple[Source, ...]) -> Mapping[Any, list[tuple[ast.Call, Source]]]:
    """The calls of each function."""
    found: dict[Any, list[tuple[ast.Call, Source]]] = {}
    for source in everything:
        for node in source.calls:
            if isinstance(called := callee(node, source), FunctionType):
                found.setdefault(called, []).append((node, source))
    return found


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(word.value for word in call.keywords)]


def _defaults(function: ast.FunctionDef, place: Place) -> dict[str, tuple[ast.expr, Place]]:
    found = function.args
    pairs = list(zip(reversed(found.args), reversed(found.defaults), strict=False))
    pairs += [(name, value) for name, value in zip(found.kwonlyargs, found.kw_defaults, strict=True) if value]
    return {name.arg: (value, place) for name, value in pairs}


def _object(function: ast.FunctionDef, source: Source) -> Any:
    """The function or method that a definition made."""
    around = source.parents.get(function)
    owner = getattr(source.module, around.name, None) if isinstance(around, ast.ClassDef) else source.module
    return getattr(owner, function.name, None)


def _makes(function: ast.FunctionDef, source: Source) -> bool:
    """Whether a function returns an error or a judgement, or keeps one for later."""
    if function.name == "tampered":
        return True
    named = [look_up(node, source) for node in ast.walk(function.returns or ast.Pass()) if isinstance(node, ast.Name)]
    return any(isinstance(one, type) and issubclass(one, TOLD) for one in named)


@cache
def _checks() -> tuple[Check, ...]:
    found = [value for source in sources() for value in vars(source.module).values() if isinstance(value, Check)]
    return tuple({id(check): check for check in found}.values())


def _titles(function: FunctionType) -> list[str]:
    return [check.title for check in _checks() if check.judge is function]


def _worded(call: ast.Call, kind: type, place: Place) -> Iterator[Wording]:
    found = _bound(kind, call)
    verdict = None
    if issubclass(kind, (Finding, Checked)):
        node = found["verdict" if issubclass(kind, Finding) else "proof"]
        verdict = look_up(node, place.source)
        if verdict in _GOOD:
            return
    if any(word.arg is None for word in call.keywords):
        return  # one that another process has worded
    wanted = ("title", "observed" if issubclass(kind, Checked) else "said", "remedy", "see")
    if issubclass(kind, ERRORS):
        wanted = ("attempted", "said", "remedy", "see")
    default = {n: p.default for n, p in inspect.signature(kind).parameters.items() if isinstance(p.default, str)}
    parts = [
        _said(found[name], replace(place, node=found[name]))
        if name in found
        else list(filter(None, [default.get(name)]))
        for name in wanted
    ]
    if issubclass(kind, Found):
        verdict = look_up(found["verdict"], place.source)
        parts[0], parts[2] = ["verifying the records"], [REMEDIES[verdict]] if verdict else list(REMEDIES.values())
    outer = next((at for _, at in place.given.values() if at.node is not call), place)
    yield Wording(
        kind,
        *(tuple(dict.fromkeys(part)) for part in parts),
        module=outer.source.module.__name__,
        line=getattr(outer.node, "lineno", call.lineno),
        made=f"{place.source.module.__name__}:{call.lineno}",
        verdict=str(verdict or ""),
    )


def _said(node: ast.expr, at: Place) -> list[str]:
    """The texts of an argument; a hole where it has some that are not found, and none where it is empty."""
    if isinstance(node, ast.Name) and node.id in at.given:
        value, place = at.given[node.id]
        return _said(value, replace(place, node=value))
    values = _reaching(node.id, at) if isinstance(node, ast.Name) else [node]
    empty = bool(values) and all(isinstance(value, ast.Constant) and not value.value for value in values)
    return words(node, at) or ([] if empty else [_hole(node)])


# --- words -------------------------------------------------------------------------------------------------------


def words(node: ast.expr, at: Place) -> list[str]:
    """The texts that an expression can stand for."""
    if at.depth > _DEEPEST:
        return [_hole(node)]
    match node:
        case ast.Constant(value=str(text)):
            return [text] if text else []
        case ast.JoinedStr():
            parts = [_part(one, at) for one in node.values]
            return ["".join(chosen) for chosen in itertools.product(*parts)]
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return _added(words(left, at), words(right, at), left, right)
        case ast.IfExp(body=body, orelse=orelse):
            return [*words(body, at), *words(orelse, at)]
        case ast.BoolOp(op=ast.Or(), values=values):
            return [text for one in values for text in words(one, at)]
        case ast.List(elts=elts) | ast.Tuple(elts=elts):
            return [text for one in elts for text in words(one, at)]
        case ast.Dict(values=values):
            return [text for one in values for text in words(one, at)]
        case ast.ListComp(elt=elt) | ast.GeneratorExp(elt=elt) | ast.Starred(value=elt):
            return words(elt, at)
        case ast.Name():
            return _of_name(node, at)
        case ast.Call():
            return _of_call(node, at)
        case ast.Subscript(value=ast.Name()) if isinstance(known := look_up(node.value, at.source), Mapping):
            return [text for text in known.values() if isinstance(text, str)]
        case ast.Attribute(value=ast.Name(id="plan"), attr="problems"):
            return _problems()
        case ast.Attribute() if isinstance(known := look_up(node, at.source), str):
            return [known]
    return [_hole(node)]


def _part(node: ast.expr, at: Place) -> list[str]:
    """A part of an f-string: text that is known, else a hole."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    inner = node.value if isinstance(node, ast.FormattedValue) else node
    if isinstance(inner, ast.IfExp):
        return [text for one in (inner.body, inner.orelse) for text in _part(one, at)]
    if isinstance(inner, ast.Call) and isinstance(called := look_up(inner.func, at.source), FunctionType):
        texts = _returned(called, inner, at)
        return texts if texts and "" in texts and not any(map(is_hole, texts)) else [_hole(inner)]
    known = look_up(inner, at.source) if isinstance(inner, (ast.Name, ast.Attribute)) else None
    if known and isinstance(known, (str, int, float, Version)):
        return [f"{known:g}" if isinstance(known, float) else str(known)]
    if isinstance(inner, ast.Name) and (found := _reaching(inner.id, at)):
        values = [value for value in found if isinstance(value, (ast.Constant, ast.JoinedStr, ast.IfExp, ast.BinOp))]
        if len(values) == len(found):
            texts = [text for value in values for text in words(value, replace(at, node=value, depth=at.depth + 1))]
            return [text for text in texts if is_hole(text)][:1] or texts
    return [_hole(inner)]


def _added(left: list[str], right: list[str], *nodes: ast.expr) -> list[str]:
    if not any(isinstance(one, (ast.Constant, ast.JoinedStr)) for node in nodes for one in _ways(node)):
        return left + right  # two lists
    texts = [
        [*found, *([""] if any(isinstance(one, ast.Constant) and not one.value for one in _ways(node)) else [])]
        for found, node in zip((left, right), nodes, strict=True)
    ]
    return ["".join(chosen) for chosen in itertools.product(*texts)]


def _ways(node: ast.expr) -> list[ast.expr]:
    return [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]


def _of_name(node: ast.Name, at: Place) -> list[str]:
    if node.id in at.given:
        value, place = at.given[node.id]
        return words(value, replace(place, node=value, depth=at.depth + 1))
    if found := _reaching(node.id, at):
        return [text for value in found for text in words(value, replace(at, node=value, depth=at.depth + 1))]
    known = look_up(node, at.source)
    if isinstance(known, str):
        return [known]
    return [_hole(node)]


def _of_call(node: ast.Call, at: Place) -> list[str]:
    called = callee(node, at.source)
    if isinstance(node.func, ast.Attribute):
        if node.func.attr in ("join", "fromkeys") and node.args:
            return words(node.args[0], at)
        if node.func.attr in ("strip", "rstrip", "removeprefix"):
            return words(node.func.value, at)
        table = look_up(node.func.value, at.source)
        if node.func.attr == "get" and isinstance(table, Mapping):
            return [text for text in table.values() if isinstance(text, str)] + words(node.args[1], at)
        if node.func.attr == "get" and isinstance(node.func.value, ast.Name):
            tables = _reaching(node.func.value.id, at)
            return [text for one in tables if isinstance(one, ast.Dict) for text in words(one, at)] or [_hole(node)]
    if isinstance(called, FunctionType) and called.__name__ not in ("few", "visible"):
        return [text for text in _returned(called, node, at) if text and not is_hole(text)] or [_hole(node)]
    if isinstance(node.func, ast.Name) and node.func.id == "map":
        return words(ast.Call(node.args[0], [node.args[1]], []), at)
    if isinstance(node.func, ast.Name) and node.args:  # str, list, few and their like
        return words(node.args[-1 if node.func.id == "filter" else 0], at)
    return [_hole(node)]


def _returned(called: FunctionType, call: ast.Call, at: Place) -> list[str]:
    """The texts that a function of the library returns or yields; empty where it makes none itself."""
    source = next((one for one in sources() if one.module.__name__ == called.__module__), None)
    function = _definition(called, source) if source else None
    if source is None or function is None:
        return []
    given = {name: (value, at) for name, value in _bound(called, call).items()}
    found = []
    for node in ast.walk(function):
        if isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom)) and node.value is not None:
            empty = isinstance(node.value, ast.Constant) and node.value.value == ""
            found += [""] if empty else words(node.value, Place(source, node.value, given, at.depth + 1))
    return found


@cache
def _definition(called: FunctionType, source: Source) -> ast.FunctionDef | None:
    found = [n for n in ast.walk(source.tree) if isinstance(n, ast.FunctionDef) and n.name == called.__name__]
    line = called.__code__.co_firstlineno
    return next((n for n in found if line in (n.lineno, *(d.lineno for d in n.decorator_list))), None)


@cache
def _problems() -> list[str]:  # type: ignore[misc]
    """Why a plan cannot be applied: what any change is given for its problems."""
    found = []
    for source in sources():
        for call in source.calls:
            for word in call.keywords:
                if word.arg == "problems":
                    found += words(word.value, Place(source, word.value, depth=1))
    return found


@cache
def pending() -> tuple[str, ...]:
    """What can be said of an object that a wait ends without."""
    found = [(call, source) for source in sources() for call in source.calls if look_up(call.func, source) is State]
    given = [(argument, Place(source, call)) for call, source in found for argument in call.args[1:]]
    texts = [text for argument, place in given for text in words(argument, replace(place, node=argument))]
    return tuple(sorted({text for text in texts if not is_hole(text)}))


# --- names -------------------------------------------------------------------------------------------------------


def _reaching(name: str, at: Place) -> list[ast.expr]:
    """The values that a name can have at a place: the last one before it on every way that leads there."""
    function = at.function
    if function is None:
        return []
    found = list(_bindings(name, function))
    grown = [value for node, value in found if isinstance(node, (ast.AugAssign, ast.Call))]
    if grown:
        return [value for _, value in found]
    here = _branches(at.node, at.source)
    reaching: list[ast.expr] = []
    for node, value in sorted(found, key=lambda one: one[0].lineno):  # type: ignore[attr-defined]
        if node.lineno > getattr(at.node, "lineno", 0) or value is at.node:  # type: ignore[attr-defined]
            continue
        there = _branches(node, at.source)
        if any(here.get(fork, branch) != branch for fork, branch in there.items()):
            continue  # in another branch
        if any(fork not in here and _leaves(fork, branch) for fork, branch in there.items()):
            continue  # in one that does not lead here
        if there.items() <= here.items():
            reaching = []  # on every way
        reaching.append(value)
    return reaching


def _bindings(name: str, function: ast.FunctionDef) -> Iterator[tuple[ast.AST, ast.expr]]:
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=bound)], value=value) if bound == name:
                yield node, value
            case ast.AnnAssign(target=ast.Name(id=bound), value=ast.expr() as value) if bound == name:
                yield node, value
            case ast.AugAssign(target=ast.Name(id=bound), value=value) if bound == name:
                yield node, value
            case ast.NamedExpr(target=ast.Name(id=bound), value=value) if bound == name:
                yield node, value
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=value):
                for position, target in enumerate(targets):
                    if isinstance(target, ast.Name) and target.id == name:
                        yield node, value.elts[position] if isinstance(value, ast.Tuple) else value
            case ast.Call(func=ast.Attribute(value=ast.Name(id=bound), attr="append"), args=[value]) if bound == name:
                yield node, value


def _branches(node: ast.AST, source: Source) -> dict[ast.AST, str]:
    """Which branch of each fork around it a node stands in."""
    found: dict[ast.AST, str] = {}
    for outer in source.around(node):
        if isinstance(outer, (ast.If, ast.Try, ast.ExceptHandler, ast.For, ast.While)):
            for part in ("test", "body", "handlers", "orelse", "finalbody"):
                inside = getattr(outer, part, None)
                held = inside if isinstance(inside, list) else [inside]
                if part not in ("test", "finalbody") and any(node is one for one in held):
                    found[outer] = part
        node = outer
        if isinstance(outer, _FUNCTIONS):
            break
    return found


def is_hole(text: str) -> bool:
    """Whether nothing of a text is known before it is said."""
    return text.startswith(OPEN) and text.endswith(CLOSE) and text.count(OPEN) == 1


def _leaves(fork: ast.AST, branch: str) -> bool:
    """Whether a branch ends by leaving the function, or what it repeats."""
    return isinstance(getattr(fork, branch)[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break))


def _hole(node: ast.AST) -> str:
    return f"{OPEN}{_name(node)}{CLOSE}"


def _name(node: ast.AST) -> str:
    """What stands in a hole, by the name that it has in the source."""
    match node:
        case ast.Name(id="error") | ast.Attribute(value=ast.Name(id="error")):
            return "reason"
        case ast.Call(func=ast.Attribute(attr="unreadable" | "refusals")):
            return "reason"  # in the server's words
        case ast.Call(func=ast.Attribute(value=ast.Name(id="re")), args=[*_, held]):
            return _name(held)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_").replace("_", " ")
        case ast.Constant(value=value):
            return str(value)
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(key)), *_]):
            return key
        case ast.Call(func=ast.Attribute(attr="join"), args=[held]):
            return _name(held)
        case ast.Call(func=ast.Attribute(value=held)):
            return _name(held)
        case ast.Call(func=ast.Name(id="filter" | "map"), args=[_, held]):
            return _name(held)
        case ast.JoinedStr(values=values):
            return " ".join(_name(one) for one in values if isinstance(one, ast.FormattedValue)) or "…"
        case ast.Call(func=ast.Name(), args=[held, *_]) | ast.Call(args=[], func=held):
            return _name(held)
        case ast.Subscript(slice=ast.Constant(value=str(key))):
            return key
        case ast.Subscript(value=held) | ast.Starred(value=held) | ast.FormattedValue(value=held):
            return _name(held)
        case (
            ast.ListComp(elt=held)
            | ast.SetComp(elt=held)
            | ast.GeneratorExp(elt=held)
            | ast.IfExp(body=held)
            | ast.BinOp(left=held)
        ):
            return _name(held)
        case ast.BoolOp(values=[held, *_]):
            return _name(held)
    return "…"
