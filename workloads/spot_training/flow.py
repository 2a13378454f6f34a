"""Flow of a loop's variables: what an iteration reads before it writes it, and what it writes, read off the source.

A *path* is a name with what is reached from it: `best`, `self.best`, `stats['best']`, `counts[*]` for any other key.
It is live where what it holds may still be read. What is live at the loop's head and written in its body is carried
from one iteration to the next. Functions and methods that the body calls are followed, where `expand` knows their
source.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Function = ast.FunctionDef | ast.AsyncFunctionDef
Loop = ast.For | ast.AsyncFor | ast.While
MUTATORS = frozenset(
    re.findall(
        r"\w+",
        "append appendleft extend extendleft insert add update setdefault pop popleft popitem remove discard subtract",
    )
)
RESETS = frozenset(("reset", "clear", "manual_seed", "seed", "zero_", "fill_"))
"""Methods that make an object forget what it held."""
_DEEPEST = 3
_IF = "\0"  # between a path that is live and the tests under which it is


@dataclass(frozen=True)
class Store:
    """A place that writes a path. `value` is what it writes, where that is an expression."""

    line: int
    value: ast.expr | None = None
    how: Literal["set", "changed"] = "set"
    lazily: bool = False  # only where the path was None before
    of_itself: bool = False  # it reads the path, or whether it is written depends on that


@dataclass(frozen=True)
class _Event:
    kind: Literal["use", "kill", "may"]
    path: str
    line: int
    store: Store | None = None


@dataclass(frozen=True)
class _Ways:
    """What is live where control goes next by other ways than to the next statement."""

    breaks: frozenset[str] = frozenset()
    continues: frozenset[str] = frozenset()
    raises: frozenset[str] | None = None


@dataclass
class _Summary:
    """What calling a function reads and writes, in the caller's paths."""

    reads: list[tuple[str, int]] = field(default_factory=list)
    writes: list[tuple[str, Store]] = field(default_factory=list)
    surely: set[str] = field(default_factory=set)


class Flow:
    """One analysis. After `live_at_head`: `stores` and `uses` (the line of the first) by path."""

    def __init__(self, expand: Callable[[str], Function | None], *, depth: int = 0) -> None:
        self.stores: dict[str, dict[int, Store]] = {}
        self.uses: dict[str, int] = {}
        self._expand = expand
        self._depth = depth
        self._guards: list[str] = []
        self._tests: list[ast.expr] = []
        self._summaries: dict[tuple[int, tuple[tuple[str, str], ...]], _Summary] = {}

    def live_at_head(self, loop: Loop) -> frozenset[str]:
        """The paths that an iteration of `loop` may read before it writes them."""
        return _paths(self._head(loop, frozenset(), _Ways()))

    def live_at_entry(self, body: list[ast.stmt]) -> frozenset[str]:
        return _paths(self._block(body, frozenset(), _Ways()))

    def reads_first(self, loop: Loop, path: str) -> bool:
        """Whether each iteration reads a path before it could write it, whichever way it takes."""
        for node in loop.body:
            simple = not isinstance(node, ast.If | ast.For | ast.While | ast.Try | ast.With | ast.Match)
            head = [getattr(node, name) for name in ("test", "iter", "subject") if hasattr(node, name)]
            for event in self._events(node) if simple else (event for at in head for event in self._read(at)):
                if event.kind == "use" and within(event.path, path):
                    return True
                if event.kind != "use" and within(path, event.path):
                    return False
            if not simple:
                inner = [one for at in ast.walk(node) if isinstance(at, ast.stmt) for one in self._plain(at)]
                if any(event.kind != "use" and within(path, event.path) for event in inner):
                    return False
        return False

    def _plain(self, node: ast.stmt) -> Iterable[_Event]:
        return self._events(node) if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Expr) else ()

    # --- statements, from the last to the first ---

    def _block(self, body: list[ast.stmt], out: frozenset[str], ways: _Ways) -> frozenset[str]:
        for statement in reversed(body):
            out = self._statement(statement, out, ways)
            if ways.raises is not None:
                out |= ways.raises
        return out

    def _statement(self, node: ast.stmt, out: frozenset[str], ways: _Ways) -> frozenset[str]:
        match node:
            case ast.If():
                return self._if(node, out, ways)
            case ast.For() | ast.AsyncFor():  # as people mean it: an inner loop over nothing is not looked for
                head = self._head(node, out, ways)
                entered = self._block(node.body, head, replace(ways, breaks=out, continues=head))
                return self._back([node.iter], self._fold(self._written([node.target], None), entered))
            case ast.While():
                return self._head(node, out, ways)
            case ast.Try() | ast.TryStar():
                return self._try(node, out, ways)
            case ast.With() | ast.AsyncWith():
                if any("suppress" in ast.dump(item.context_expr) for item in node.items):
                    ways = replace(ways, raises=out | (ways.raises or frozenset()))
                live = self._block(node.body, out, ways)
                for item in reversed(node.items):
                    targets = [item.optional_vars] if item.optional_vars else []
                    live = self._fold([*self._read(item.context_expr), *self._written(targets, None)], live)
                return live
            case ast.Match():
                last = node.cases[-1]
                takes_all = isinstance(last.pattern, ast.MatchAs) and not (last.pattern.pattern or last.guard)
                live = frozenset() if takes_all else out
                for case in node.cases:
                    names = [at.name for at in ast.walk(case.pattern) if isinstance(at, ast.MatchAs | ast.MatchStar)]
                    kills = [_Event("kill", name, node.lineno) for name in names if name]
                    tested = list(self._read(case.guard)) if case.guard else []
                    live |= self._fold([*kills, *tested], self._block(case.body, out, ways))
                return self._back([node.subject], live)
            case ast.Break():
                return ways.breaks
            case ast.Continue():
                return ways.continues
            case ast.Return():
                return self._back([node.value] if node.value else [], frozenset())
            case ast.Raise():
                return self._back([at for at in (node.exc, node.cause) if at], ways.raises or frozenset())
        return self._fold(self._events(node), out)

    def _if(self, node: ast.If, out: frozenset[str], ways: _Ways) -> frozenset[str]:
        """What is needed only where a test holds is not needed where the same test, before, does not."""
        said = ast.unparse(node.test)
        self._guards.append(_none_before(node.test))
        self._tests.append(node.test)
        taken = self._block(node.body, frozenset(at for at in out if not _only(at, f"not {said}")), ways)
        other = self._block(node.orelse, frozenset(at for at in out if not _only(at, said)), ways)
        self._tests.pop()
        self._guards.pop()
        taken = frozenset(at if at in out else f"{at}{_IF}{said}" for at in taken)
        other = frozenset(at if at in out else f"{at}{_IF}not {said}" for at in other)
        return self._back([node.test], taken | other)

    def _head(self, loop: Loop, out: frozenset[str], ways: _Ways) -> frozenset[str]:
        after = self._block(loop.orelse, out, ways)
        head: frozenset[str] = frozenset()
        while True:
            body = self._block(loop.body, head, replace(ways, breaks=out, continues=head))
            if isinstance(loop, ast.While):
                endless = isinstance(loop.test, ast.Constant) and bool(loop.test.value)
                found = self._back([loop.test], body if endless else body | after)
            else:
                found = after | self._fold(self._written([loop.target], None), body)
            if found <= head:
                return head
            head |= found

    def _try(self, node: ast.Try | ast.TryStar, out: frozenset[str], ways: _Ways) -> frozenset[str]:
        if node.finalbody:
            out = self._block(node.finalbody, out, ways)
            ways = replace(
                ways,
                breaks=self._block(node.finalbody, ways.breaks, ways),
                continues=self._block(node.finalbody, ways.continues, ways),
            )
        caught = ways.raises or frozenset()
        for handler in node.handlers:
            live = self._block(handler.body, out, ways)
            caught |= live - {handler.name} if handler.name else live
        if node.finalbody and not node.handlers:
            caught |= self._block(node.finalbody, frozenset(), ways)
        return self._block(node.body, self._block(node.orelse, out, ways), replace(ways, raises=caught))

    def _events(self, node: ast.stmt) -> Iterable[_Event]:
        """What a statement without other statements in it reads and writes, in order."""
        match node:
            case ast.Assign():
                return [*self._read(node.value), *self._written(node.targets, node.value)]
            case ast.AnnAssign() if node.value:
                return [*self._read(node.value), *self._written([node.target], node.value)]
            case ast.AugAssign():
                summed = ast.BinOp(node.target, node.op, node.value)
                return [*self._read(node.target), *self._read(node.value), *self._written([node.target], summed)]
            case ast.Delete():
                return [_Event("kill", path, node.lineno) for at in node.targets if (path := path_of(at))]
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                inner = [at for at in self._free(node) if at.path != node.name]
                return [*inner, _Event("kill", node.name, node.lineno)]
            case ast.Import() | ast.ImportFrom():
                return [_Event("kill", (at.asname or at.name).split(".")[0], node.lineno) for at in node.names]
            case ast.AnnAssign() | ast.Global() | ast.Nonlocal():
                return []
        return [event for child in ast.iter_child_nodes(node) for event in self._read(child)]

    # --- expressions ---

    def _read(self, node: ast.AST) -> Iterator[_Event]:
        match node:
            case ast.Name() | ast.Attribute() | ast.Subscript():
                path = path_of(node)
                if path:
                    yield _Event("use", path, node.lineno)
                elif isinstance(node, ast.Subscript):
                    base = path_of(node.value)
                    yield from self._read(node.slice)
                    if base:
                        yield _Event("use", f"{base}[*]", node.lineno)
                    else:
                        yield from self._read(node.value)
                elif isinstance(node, ast.Attribute):
                    yield from self._read(node.value)
            case ast.Call():
                yield from self._called(node)
            case ast.NamedExpr():
                yield from self._read(node.value)
                yield from self._written([node.target], node.value)
            case ast.Lambda():
                yield from self._free(node)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                own = {
                    at.id
                    for one in node.generators
                    for at in ast.walk(one.target)
                    if isinstance(at, ast.Name) and isinstance(at.ctx, ast.Store)
                }
                parts: list[ast.AST] = [at for one in node.generators for at in (one.iter, *one.ifs)]
                parts += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
                yield from (event for at in parts for event in self._read(at) if root(event.path) not in own)
            case _:
                for child in ast.iter_child_nodes(node):
                    yield from self._read(child)

    def _called(self, node: ast.Call) -> Iterator[_Event]:
        base = path_of(node.func.value) if isinstance(node.func, ast.Attribute) else None
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if not (base and method in RESETS):
            yield from self._read(node.func)
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            yield from self._read(argument)
        if base and method in RESETS:
            yield _Event("kill", base, node.lineno)
        elif base and (method in MUTATORS or (method.endswith("_") and not method.endswith("__"))):
            yield _Event("may", base, node.lineno, Store(node.lineno, how="changed"))
        if summary := self._summary(node):
            yield from (_Event("use", path, line) for path, line in summary.reads)
            for path, store in summary.writes:
                yield _Event("kill" if path in summary.surely else "may", path, store.line, store)

    def _free(self, node: Function | ast.Lambda | ast.ClassDef) -> Iterator[_Event]:
        """What a function made in the body reads of what is around it, as if it ran where it is made."""
        own = _locals(node)
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        for statement in body:
            for at in ast.walk(statement):
                if not isinstance(at, ast.Name | ast.Attribute) or not isinstance(at.ctx, ast.Load):
                    continue
                if (path := path_of(at)) and root(path) not in own:
                    yield _Event("use", path, at.lineno)

    def _written(self, targets: Iterable[ast.expr], value: ast.expr | None) -> Iterator[_Event]:
        for target in targets:
            match target:
                case ast.Tuple() | ast.List():
                    parts = value.elts if isinstance(value, ast.Tuple | ast.List) else []
                    same = len(parts) == len(target.elts)
                    for at, one in enumerate(target.elts):
                        yield from self._written([one], parts[at] if same else value)
                case ast.Starred():
                    yield from self._written([target.value], value)
                case _:
                    if path := path_of(target):
                        store = Store(target.lineno, value, "set", path in self._guards, self._reads(value, path))
                        yield _Event("kill", path, target.lineno, store)
                    elif isinstance(target, ast.Subscript):
                        yield from self._read(target.slice)
                        if base := path_of(target.value):
                            lazily = base in self._guards
                            yield _Event("may", f"{base}[*]", target.lineno, Store(target.lineno, value, lazily=lazily))
                    elif isinstance(target, ast.Attribute):
                        yield from self._read(target.value)

    def _reads(self, value: ast.expr | None, path: str) -> bool:
        """Whether a value, or a test around where it is put, reads a path."""
        sources = [*self._tests, *([value] if value else [])]
        return any(path_of(at) == path for source in sources for at in ast.walk(source))

    def _back(self, nodes: Iterable[ast.AST], live: frozenset[str]) -> frozenset[str]:
        return self._fold([event for node in nodes for event in self._read(node)], live)

    def _fold(self, events: Iterable[_Event], live: frozenset[str]) -> frozenset[str]:
        now = set(live)
        for event in reversed(list(events)):
            if event.store:
                self.stores.setdefault(event.path, {}).setdefault(event.line, event.store)
            if event.kind == "use":
                now.add(event.path)
                self.uses[event.path] = min(event.line, self.uses.get(event.path, event.line))
            elif event.kind == "kill":
                now = {at for at in now if not within(at.split(_IF, 1)[0], event.path)}
        return frozenset(now)

    # --- calls into functions whose source is known ---

    def _summary(self, call: ast.Call) -> _Summary | None:
        path = path_of(call.func)
        if path is None or self._depth >= _DEEPEST or (function := self._expand(path)) is None:
            return None
        names = [at.arg for at in (*function.args.posonlyargs, *function.args.args)]
        mapping: dict[str, str] = {}
        if "." in path and names:
            mapping[names.pop(0)] = path.rsplit(".", 1)[0]
        for name, given in (*zip(names, call.args, strict=False), *((at.arg, at.value) for at in call.keywords)):
            if name and (given_path := path_of(given)):
                mapping[name] = given_path
        key = id(function), tuple(sorted(mapping.items()))
        if key not in self._summaries:
            self._summaries[key] = _Summary()  # of a function that calls itself
            self._summaries[key] = self._summarize(function, mapping)
        return self._summaries[key]

    def _summarize(self, function: Function, mapping: Mapping[str, str]) -> _Summary:
        own = _locals(function)

        def outside(path: str) -> str | None:
            name = root(path)
            if name in mapping:
                return mapping[name] + path[len(name) :]
            return None if name in own else path

        def expand(path: str) -> Function | None:
            return self._expand(there) if (there := outside(path)) else None

        inner = Flow(expand, depth=self._depth + 1)
        live = inner.live_at_entry(function.body)
        writes = [
            (there, store)
            for path, stores in inner.stores.items()
            if path not in mapping and (there := outside(path))
            for store in stores.values()
        ]
        plain = [at for at in function.body if isinstance(at, ast.Assign | ast.AnnAssign | ast.Expr | ast.AugAssign)]
        at_top = {event.path for at in plain for event in inner._events(at) if event.kind == "kill"}
        return _Summary(
            reads=[(there, inner.uses[path]) for path in sorted(live) if (there := outside(path))],
            writes=writes,
            surely={there for path in at_top if path not in mapping and (there := outside(path))},
        )


def path_of(node: ast.AST) -> str | None:
    """`self.best`, `stats['best']`; None where it is no plain path."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return f"{base}.{node.attr}" if (base := path_of(node.value)) else None
        case ast.Subscript(slice=ast.Constant(value=str() | int() as key)):
            return f"{base}[{key!r}]" if (base := path_of(node.value)) else None
    return None


def root(path: str) -> str:
    return path.split(".", 1)[0].split("[", 1)[0]


def within(path: str, of: str) -> bool:
    """Whether `path` is `of`, or reached from it."""
    return path == of or (path.startswith(of) and path[len(of)] in ".[")


def _only(live: str, test: str) -> bool:
    """Whether it is live only under a test."""
    return test in live.split(_IF)[1:]


def _paths(live: frozenset[str]) -> frozenset[str]:
    return frozenset(at.split(_IF, 1)[0] for at in live)


def prefixes(path: str) -> list[str]:
    """`a`, `a.b` and `a.b['c']` of the last."""
    return [path[: at.start()] for at in re.finditer(r"[.\[]", path)] + [path]


def _locals(node: Function | ast.Lambda | ast.ClassDef) -> set[str]:
    outer = {name for at in ast.walk(node) if isinstance(at, ast.Global | ast.Nonlocal) for name in at.names}
    own = {at.id for at in ast.walk(node) if isinstance(at, ast.Name) and not isinstance(at.ctx, ast.Load)}
    own |= {at.arg for at in ast.walk(node) if isinstance(at, ast.arg)}
    own |= {at.name for at in ast.walk(node) if isinstance(at, ast.FunctionDef | ast.ClassDef)}
    return own - outer


def _none_before(test: ast.expr) -> str:
    """`x` of `if x is None` and `if not x`; empty for any other test."""
    match test:
        case ast.Compare(left=left, ops=[ast.Is()], comparators=[ast.Constant(value=None)]):
            return path_of(left) or ""
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return path_of(operand) or ""
    return ""
