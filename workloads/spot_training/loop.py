"""Findings: what the training loop itself carries from step to step without tracking it, read off its source.

`findings` looks at the frame that iterates `session.steps()`: which of its variables an iteration reads before it
writes them (flow.py), and which things with a state of their own it uses (used.py). Where there is no source, or it
is not understood, there are no findings.
"""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, FunctionType, GeneratorType, MethodType
from typing import Any, Literal

from spot_training.flow import Flow, Function, Loop, Store, path_of, prefixes, root, within
from spot_training.source import find, is_fetch, is_stateless, loops_at, method, parsed, yields_items
from spot_training.used import (
    CYCLE,
    MISSING,
    Kind,
    Owned,
    attribute,
    can_change,
    inside,
    is_iterator,
    is_library,
    is_optimizer,
    is_session,
    kind_of,
    parameters_of,
)
from torch import nn
from torch.utils import data as torch_data

log = logging.getLogger("spot")

_CLOCKS = frozenset(
    ("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "now", "utcnow")
)
_WRAPS = frozenset(("zip", "enumerate", "tqdm", "trange", "track", "iter", "islice", "reversed", "map"))
_FRAMES = 8


@dataclass(frozen=True)
class Finding:
    """One thing that a resume would not bring back. `what` is a whole sentence, with the fix."""

    name: str
    file: str
    line: int
    kind: Literal["carried", "untracked"]
    what: str
    surely: bool


def findings(frame: FrameType, tracked: Mapping[str, object]) -> list[Finding]:
    """What the loop in `frame` holds from one step to the next, and `tracked` does not. By line."""
    try:
        reader = _Reader.of(frame, tracked)
        found = reader.findings() if reader else []
    except Exception as error:  # noqa: BLE001 - advice about a script we never saw: its training goes on
        log.warning("the loop could not be read: %s: %s", type(error).__name__, error)
        return []
    unique = {(one.name, one.kind): one for one in reversed(found)}
    return sorted(unique.values(), key=lambda one: (one.line, one.name))


class _Reader:
    """A loop with what is around it: `loops` from the one that takes the steps outward."""

    def __init__(self, frame: FrameType, tree: ast.Module, loops: list[Loop], tracked: Mapping[str, object]) -> None:
        self._frame = frame
        self._file = Path(frame.f_code.co_filename).name
        self._tree = tree
        self._loops = loops
        self._owned = Owned(tracked)
        self._functions = {
            (at.name, line): at
            for at in ast.walk(tree)
            if isinstance(at, ast.FunctionDef | ast.AsyncFunctionDef)
            for line in {at.lineno, *(one.lineno for one in at.decorator_list)}
        }
        self._flow = Flow(self._function)
        self._seen: set[int] = set()
        for value in (*frame.f_locals.values(), *frame.f_globals.values()):
            if is_optimizer(value):
                self._owned.optimized |= {id(one) for one in parameters_of(value)}

    @classmethod
    def of(cls, frame: FrameType, tracked: Mapping[str, object]) -> _Reader | None:
        """The first loop of the user's own, from `frame` outward."""
        at: FrameType | None = frame
        for _ in range(_FRAMES):
            if at is None:
                return None
            if not is_library(at.f_code):
                if found := loops_at(at):
                    return cls(at, *found, tracked)
                if at.f_code.co_name == "<module>":
                    return None
            at = at.f_back
        return None

    def findings(self) -> list[Finding]:
        live: frozenset[str] = frozenset()
        carried: dict[str, list[Store]] = {}
        for loop in self._loops:  # from the innermost out: the last one's flow knows all
            self._flow = Flow(self._function)
            here = self._flow.live_at_head(loop)
            live |= here
            for path, stores in self._flow.stores.items():
                if any(within(one, path) for one in here):
                    carried[path] = list(stores.values())
        for value in (self._value(prefix) for path in live for prefix in prefixes(path)):
            if is_optimizer(value):
                self._owned.optimized |= {id(one) for one in parameters_of(value)}
        found = [one for path, stores in carried.items() if (one := self._carried(path, stores))]
        found += self._attributes_of_modules()
        for loop in self._loops:
            if isinstance(loop, ast.For | ast.AsyncFor):
                found += self._iterated(loop, loop.iter, loop.target)
        for path in sorted(live):
            found += self._untracked(path)
        return found

    # --- carried ---

    def _carried(self, path: str, stores: list[Store]) -> Finding | None:
        if self._is_harmless(path, stores):
            return None
        line = min(store.line for store in stores)
        values = [store.value for store in stores if store.value is not None]
        if values and all(is_fetch(value) for value in values):
            return Finding(
                path, self._file, line, "carried",
                f"`{path}` ({self._file}:{line}) is fetched for the next step in this one: after a resume it is "
                "fetched again, and is another batch. Fetch it at the top of the loop's body, where it is used.",
                True,
            )  # fmt: skip
        base = path.removesuffix("[*]")
        key = re.findall(r"\w+", base)[-1]
        sums_up = all(store.how == "changed" for store in stores) or path.endswith("[*]")
        sure = any(store.of_itself for store in stores) or self._flow.reads_first(self._loops[0], path)
        holds_flag = bool(values) and all(isinstance(value, ast.Constant | ast.NameConstant) for value in values)
        return Finding(
            base, self._file, line, "carried",
            f"`{base}` ({self._file}:{line}) "
            + ("is filled" if sums_up else "carries over")
            + " from one step to the next and is not tracked: after a resume it begins anew. "
            + (
                f"Track it: session.track({key}={base})"
                if sums_up
                else f'Keep it in a tracked dict: state = {{"{key}": ...}}; session.track(state=state)'
            ),
            sure and not (sums_up or holds_flag),
        )  # fmt: skip

    def _is_harmless(self, path: str, stores: list[Store]) -> bool:
        base = path.removesuffix("[*]")
        if all(store.lazily for store in stores) or self._is_clock(path, frozenset()):
            return True
        for prefix in prefixes(base):
            value = self._value(prefix)
            if is_session(value) or (value in self._owned and not isinstance(value, nn.Module)):
                return True
            if isinstance(value, nn.Module) and value in self._owned and prefix != base:
                rest = re.split(r"[.\[]", base[len(prefix) + 1 :])[0]
                if prefix == base or rest in value._parameters or rest in value._buffers or rest in value._modules:
                    return True
        value = self._value(base)
        if value in self._owned:
            return True
        if all(store.how == "changed" for store in stores) and not can_change(value):
            return True
        if path.endswith("[*]") and value is MISSING:
            return True
        before = list(self._set_before(base))
        after = [store.value for store in stores if store.value is not None]
        if not any(self._comes_from_tracked(at) for at in before):
            return False
        return self._owned.fetches_ahead() or not any(is_fetch(at) for at in (*before, *after))

    def _is_clock(self, path: str, asked: frozenset[str]) -> bool:
        """Whether all that is ever put there is a time of day, or reckoned from one."""
        values = [store.value for store in self._flow.stores.get(path, {}).values()]
        return bool(values) and all(value is not None and self._tells_time(value, asked | {path}) for value in values)

    def _tells_time(self, value: ast.expr, asked: frozenset[str]) -> bool:
        for at in ast.walk(value):
            if isinstance(at, ast.Call) and (path := path_of(at.func)) and path.split(".")[-1] in _CLOCKS:
                return True
        names = [path for at in ast.walk(value) if isinstance(at, ast.Name) and (path := path_of(at))]
        return any(name not in asked and self._is_clock(name, asked) for name in names)

    def _set_before(self, path: str) -> Iterator[ast.expr]:
        """What the same function puts there outside the loop."""
        inside = {id(at) for at in ast.walk(self._loops[-1])}
        scope = self._scope()
        for at in ast.walk(scope):
            if id(at) in inside or not isinstance(at, ast.Assign | ast.AnnAssign) or at.value is None:
                continue
            for target in at.targets if isinstance(at, ast.Assign) else [at.target]:
                if any(path_of(one) == path for one in ast.walk(target)):
                    yield at.value

    def _scope(self) -> ast.AST:
        code = self._frame.f_code
        return self._functions.get((code.co_name, code.co_firstlineno), self._tree)

    def _comes_from_tracked(self, value: ast.expr) -> bool:
        for at in ast.walk(value):
            if path := path_of(at):
                there = self._value(path)
                if is_session(there) or there in self._owned or (is_iterator(there) and self._owned.derives(there)):
                    return True
        return False

    def _attributes_of_modules(self) -> Iterator[Finding]:
        """What a tracked module's `forward` carries from call to call in attributes that are not its state."""
        done: set[type] = set()
        for module in [one for one in self._owned.all() if isinstance(one, nn.Module)]:
            kind = type(module)
            code = getattr(kind.forward, "__code__", None)
            keeps_more = kind.get_extra_state is not nn.Module.get_extra_state
            if kind in done or keeps_more or code is None or is_library(code) or not (tree := parsed(code.co_filename)):
                continue
            done.add(kind)
            function = find(tree, code.co_name, code.co_firstlineno)
            if function is None or not function.args.args:
                continue
            own = function.args.args[0].arg
            flow = Flow(lambda path, kind=kind: method(kind, path))  # type: ignore[misc]
            live = flow.live_at_entry(function.body)
            for path, stores in flow.stores.items():
                base = path.removesuffix("[*]")
                if root(path) != own or path == own or not any(within(one, path) for one in live):
                    continue
                called = re.findall(r"\w+", base)[1]
                value = getattr(module, called, None)
                lazily = all(store.lazily for store in stores.values())
                if lazily or value in self._owned or not can_change(value, plain=True):
                    continue
                line, file = min(stores), Path(code.co_filename).name
                name = f"{kind.__name__}.{called}"
                yield Finding(
                    name, file, line, "carried",
                    f"`{name}` ({file}:{line}) changes in {kind.__name__}.forward and is not in its state_dict(): "
                    "after a resume it begins anew. Make it a buffer: "
                    f'self.register_buffer("{called}", torch.tensor(...))',
                    True,
                )  # fmt: skip

    # --- untracked ---

    def _untracked(self, path: str) -> Iterator[Finding]:
        for prefix in prefixes(path):
            value = self._value(prefix)
            if value is MISSING or value in self._owned or is_session(value):
                return
            line = self._flow.uses[path]
            yield from self._of_kind(prefix, value, line)
            if kind_of(value, self._owned):
                return
            whole = prefix == path or callable(self._value(path))
            for name, one in inside(value, whole and root(path) != "self"):
                if isinstance(name, str) and name.isidentifier():
                    yield from self._of_kind(f"{prefix}.{name}" if not isinstance(value, dict) else prefix, one, line)
                else:
                    yield from self._of_kind(f"{prefix}[{name!r}]", one, line)

    def _of_kind(self, name: str, value: object, line: int) -> Iterator[Finding]:
        kind = kind_of(value, self._owned)
        if isinstance(value, torch_data.DataLoader) and value not in self._owned and value.generator is not None:
            yield from self._of_kind(f"{name}.generator", value.generator, line)
        if isinstance(value, GeneratorType) and kind and self._is_without_state(value):
            kind = None
        if kind is None and isinstance(value, nn.Module) and value not in self._owned and self._is_average(name):
            kind = Kind("a module that the loop changes, as an average of another's parameters", surely=False)
        if kind and id(value) not in self._seen:
            self._seen.add(id(value))
            yield self._untracked_finding(name, kind, line)

    def _untracked_finding(self, name: str, kind: Kind, line: int) -> Finding:
        key = ([at for at in re.findall(r"\w+", name) if at.isidentifier()] or ["it"])[-1]
        fix = kind.fix.format(name=name, key=key)
        what = f"`{name}` ({self._file}:{line}) is {kind.what} and is not tracked: after a resume {kind.loss}. {fix}"
        return Finding(name, self._file, line, "untracked", what, kind.surely)

    def _iterated(self, loop: ast.For | ast.AsyncFor, node: ast.expr, target: ast.expr) -> Iterator[Finding]:
        """What a loop that goes on from step to step takes its items from: `target` those of `node`."""
        path = path_of(node)
        value = self._value(path) if path else MISSING
        called = path_of(node.func) or "" if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Call) and called.split(".")[-1] in _WRAPS:
            parts = target.elts if isinstance(target, ast.Tuple) else []
            arguments = node.args[1:] if called == "map" else node.args
            if called == "enumerate" and len(parts) == 2 and len(arguments) == 1:
                if not node.keywords and self._is_read(loop, parts[0]):
                    yield self._begins_again(loop, ast.unparse(node), ast.unparse(parts[0]))
                parts = parts[1:]
            for at, argument in enumerate(arguments):
                yield from self._iterated(loop, argument, parts[at] if len(parts) == len(arguments) else target)
        elif called in ("cycle", "itertools.cycle"):
            yield self._untracked_finding(ast.unparse(node), CYCLE, loop.lineno)
        elif self._comes_from_tracked(node) or self._takes_steps(node) or isinstance(node, ast.Constant):
            return
        elif path and is_iterator(value):
            yield from self._of_kind(path, value, loop.lineno)
        elif path and isinstance(value, torch_data.DataLoader):
            kind = Kind(
                "a plain DataLoader whose position is lost",
                "Use loader = ResumableLoader(dataset, ...) of spot_training.data, and session.track(loader=loader)",
                "it begins with a first batch again",
            )
            yield self._untracked_finding(path, kind, loop.lineno)
        elif (
            (path and isinstance(value, Sized))
            or ((function := self._function(called)) and yields_items(function) and not is_stateless(function))
            or (called == "range" and self._is_read(loop, target))
        ):
            yield self._begins_again(loop, ast.unparse(node), ast.unparse(target))

    def _begins_again(self, loop: ast.For | ast.AsyncFor, source: str, name: str) -> Finding:
        return Finding(
            name, self._file, loop.lineno, "carried",
            f"`{name}` ({self._file}:{loop.lineno}) goes through `{source}` from step to step: after a resume it "
            "begins with the first again. Take it from the step (`step // steps_per_epoch`), or from a tracked loader.",
            True,
        )  # fmt: skip

    def _takes_steps(self, node: ast.expr) -> bool:
        return any(
            isinstance(at, ast.Call) and isinstance(at.func, ast.Attribute) and at.func.attr == "steps"
            for at in ast.walk(node)
        ) or any(is_session(self._value(path)) for at in ast.walk(node) if (path := path_of(at)))

    def _is_read(self, loop: ast.For | ast.AsyncFor, target: ast.expr) -> bool:
        """Whether the loop's body reads a variable of it, other than to say up to which step it goes on."""
        names = {at.id for at in ast.walk(target) if isinstance(at, ast.Name)}
        for_steps = {
            id(inner)
            for at in ast.walk(loop)
            if isinstance(at, ast.Call) and (path_of(at.func) or "").endswith((".steps", ".set_epoch"))
            for inner in ast.walk(at)
        }
        read = [at for statement in loop.body for at in ast.walk(statement) if isinstance(at, ast.Name)]
        bound = any(at.id in names and id(at) in for_steps for at in read)
        return not bound and any(at.id in names for at in read)

    def _is_average(self, name: str) -> bool:
        """Whether the loop, or a function that it calls, writes a module's parameters by hand."""
        bodies: list[ast.AST] = [self._loops[0]]
        for at in ast.walk(self._loops[0]):
            if isinstance(at, ast.Call) and any(path_of(one) == name for one in at.args):
                function = self._function(path_of(at.func) or "")
                bodies += [function] if function else []
        text = "\n".join(ast.unparse(body) for body in bodies)
        named = ast.unparse(self._loops[0])
        written = re.search(r"\.(lerp_|mul_|copy_)\(|\.data\s*=", text)
        return bool(written) and bool(
            re.search(rf"\b{re.escape(name)}\.(parameters|state_dict|named_parameters|buffers)\(", named)
            or len(bodies) > 1
        )

    def _is_without_state(self, generator: GeneratorType[Any, Any, Any]) -> bool:
        tree = parsed(generator.gi_code.co_filename)
        function = find(tree, generator.gi_code.co_name, generator.gi_code.co_firstlineno) if tree else None
        return function is not None and is_stateless(function)

    # --- values ---

    def _value(self, path: str) -> object:
        """What is there now, without running anything of the user's."""
        name = root(path)
        frame = self._frame
        value = frame.f_locals.get(name, frame.f_globals.get(name, MISSING))
        for named, key in re.findall(r"\.(\w+)|\[([^\]]*)\]", path[len(name) :]):
            if value is MISSING:
                return value
            if named:
                value = attribute(value, named)
            elif isinstance(value, dict | list | tuple):
                try:
                    value = value[ast.literal_eval(key)]
                except (KeyError, IndexError, TypeError, ValueError, SyntaxError):
                    return MISSING
            else:
                return MISSING
        return value

    def _function(self, path: str) -> Function | None:
        """The source of a function or method that stands in the same file."""
        value = self._value(path)
        if isinstance(value, MethodType):
            value = value.__func__
        if not isinstance(value, FunctionType) or value.__code__.co_filename != self._frame.f_code.co_filename:
            return None
        return self._functions.get((value.__code__.co_name, value.__code__.co_firstlineno))
