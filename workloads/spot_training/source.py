"""Source of a running frame: its loops, functions by name and line, and what generators and calls in it are."""

from __future__ import annotations

import ast
import inspect
import linecache
import re
from types import FrameType, FunctionType

from spot_training.flow import Flow, Function, Loop, path_of, within
from spot_training.used import is_library

_FETCHES = re.compile(r"next|(get|next|fetch|load|sample|draw)_?(the_)?(next_)?batch")


def parsed(file: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return None


def loops_at(frame: FrameType) -> tuple[ast.Module, list[Loop]] | None:
    """The loops around where a frame is, from the innermost outward; None where there is none."""
    code = frame.f_code
    tree = parsed(code.co_filename)
    line = list(code.co_positions())[frame.f_lasti // 2][0] or frame.f_lineno
    scope: ast.AST | None = tree
    if code.co_name != "<module>":
        scope = find(tree, code.co_name, code.co_firstlineno) if tree else None
    if tree is None or scope is None:
        return None
    around: list[Loop] = []
    todo = list(ast.iter_child_nodes(scope))
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.For | ast.AsyncFor | ast.While) and node.lineno <= line <= (
            node.end_lineno or node.lineno
        ):
            around.append(node)
        todo += ast.iter_child_nodes(node)
    around.sort(key=lambda node: -node.lineno)
    return (tree, around) if around else None


def find(tree: ast.Module, name: str, line: int) -> Function | None:
    for at in ast.walk(tree):
        if not isinstance(at, ast.FunctionDef | ast.AsyncFunctionDef) or at.name != name:
            continue
        if line in (at.lineno, *(one.lineno for one in at.decorator_list)):
            return at
    return None


def method(kind: type, path: str) -> Function | None:
    """`self.helper` of a user's class."""
    function = inspect.getattr_static(kind, path.split(".")[1], None) if path.count(".") == 1 else None
    if not isinstance(function, FunctionType) or is_library(function.__code__):
        return None
    tree = parsed(function.__code__.co_filename)
    return find(tree, function.__code__.co_name, function.__code__.co_firstlineno) if tree else None


def yields_items(function: Function) -> bool:
    return any(isinstance(at, ast.Yield | ast.YieldFrom) for at in ast.walk(function))


def is_stateless(function: Function) -> bool:
    """Whether a generator function gives each item by the same means: `while True: yield draw()`."""
    yields = {id(at) for at in ast.walk(function) if isinstance(at, ast.Yield | ast.YieldFrom)}
    outer = [at for at in function.body if isinstance(at, ast.While) and any(id(one) in yields for one in ast.walk(at))]
    inner = [at for one in outer for at in ast.walk(one) if isinstance(at, ast.For | ast.AsyncFor)]
    if any(id(one) in yields for at in inner for one in ast.walk(at)):
        return False
    if sum(id(one) in yields for at in outer for one in ast.walk(at)) != 1 or len(yields) != 1:
        return False
    flow = Flow(lambda _: None)
    live = flow.live_at_head(outer[0])
    return not any(within(one, path) for path in flow.stores for one in live) and not _takes_next(outer[0])


def _takes_next(loop: Loop) -> bool:
    return any(isinstance(at, ast.Call) and path_of(at.func) == "next" for at in ast.walk(loop))


def is_fetch(value: ast.expr) -> bool:
    """Whether it takes a batch from somewhere: `next(batches)`, `get_batch("train")`."""
    return any(
        isinstance(at, ast.Call) and (path := path_of(at.func)) and _FETCHES.fullmatch(path.split(".")[-1])
        for at in ast.walk(value)
    )
