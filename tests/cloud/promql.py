"""As much of PromQL and of Cloud Logging's filters as our alerts use, evaluated over the records of a run.

Log-based metrics are deltas: `increase` is what was recorded in the window. A gauge counts for five minutes.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.stacks.observability.metrics import METRICS, JournalMetric

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
_TOKEN = re.compile(
    r'\s*("(?:[^"\\]|\\.)*"|[0-9.]+[smhd](?![A-Za-z0-9_])|[0-9.]+|[A-Za-z_][A-Za-z0-9_:]*|[<>=!]=|=~|[-(){}\[\],:<>=])'
)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_LOOKBACK_S = 300.0


def matches(log_filter: str, entry: Mapping[str, Any]) -> bool:
    """Whether an entry of Cloud Logging fits: `a="x" AND jsonPayload.B=("y" OR "z")`."""
    for term in log_filter.split(" AND "):
        name, _, wanted = term.partition("=")
        found: Any = entry
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if found not in re.findall(r'"([^"]*)"', wanted):
            return False
    return True


def extract(extractor: str, fields: Mapping[str, str]) -> str | None:
    """What EXTRACT or REGEXP_EXTRACT gives of a record's fields."""
    whole = re.fullmatch(r"(?:REGEXP_)?EXTRACT\(jsonPayload\.(\w+)(?:, \"(.*)\")?\)", extractor)
    assert whole, extractor
    text = fields.get(whole[1])
    if text is None or whole[2] is None:
        return text
    found = re.search(whole[2].replace('\\"', '"'), text)
    return found[1] if found else None


@dataclass
class Recorded:
    """`events`: of each metric, when, with which labels and value. `vms`: from when on there were how many."""

    events: dict[str, list[tuple[float, dict[str, str], float]]] = field(default_factory=dict)
    vms: list[tuple[float, int]] = field(default_factory=list)
    metrics: dict[str, JournalMetric] = field(default_factory=dict)

    def note(self, run_id: str, entries: Sequence[tuple[float, Mapping[str, Any]]]) -> None:
        """What Cloud Logging takes from these entries, each with its time in seconds."""
        for metric in METRICS:
            name = "logging_googleapis_com:" + re.sub(r"[^A-Za-z0-9]", "_", f"user/{metric.full_name(run_id)}")
            self.metrics[name] = metric
            for at, entry in entries:
                if not matches(metric.log_filter((run_id,)), entry):
                    continue
                fields = entry["jsonPayload"]
                value = extract(metric.extractor, fields) if metric.extractor else "1"
                if value is not None:
                    labels = {metric.label: str(fields.get(metric.label.upper()))} if metric.label else {}
                    self.events.setdefault(name, []).append((at, labels, float(value)))


def holds(query: str, data: Recorded, at: float, *, for_s: float = 0.0) -> bool:
    """Whether an alert's condition fires at `at`: true each minute for so long."""
    tree = parse(query)
    return all(evaluate(tree, data, at - ago) for ago in [60.0 * n for n in range(int(for_s // 60) + 1)])


def parse(query: str) -> Any:
    tokens, end = [], 0
    while end < len(query):
        found = _TOKEN.match(query, end)
        assert found, f"{query[end:]!r} in {query}"
        tokens.append(found[1])
        end = found.end()
    parser = _Parser(tokens)
    tree = parser.logical()
    assert not parser.tokens, parser.tokens
    return tree


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens

    def take(self, *wanted: str) -> str:
        assert self.tokens, f"nothing where {wanted} should be"
        assert not wanted or self.tokens[0] in wanted, f"{self.tokens[0]!r}, not {wanted}"
        return self.tokens.pop(0)

    def has(self, *wanted: str) -> bool:
        return bool(self.tokens) and self.tokens[0] in wanted

    def logical(self) -> Any:
        """`or` binds weaker than `and`, and that weaker than a comparison."""
        tree = self.conjunction()
        while self.has("or"):
            self.take()
            tree = ("or", tree, self.conjunction())
        return tree

    def conjunction(self) -> Any:
        tree = self.comparison()
        while self.has("and"):
            for token in ("and", "on", "(", ")"):
                self.take(token)
            tree = ("and", tree, self.comparison())
        return tree

    def comparison(self) -> Any:
        tree = self.ranged()
        while self.has(*_COMPARE):
            how = self.take()
            kind = "truth" if self.has("bool") and self.take() else "compare"
            tree = (kind, how, tree, float(self.take()))
        return tree

    def ranged(self) -> Any:
        tree = self.atom()
        if self.has("["):
            self.take()
            window, step = _seconds(self.take()), 0.0
            if self.has(":"):
                self.take()
                step = _seconds(self.take())
            self.take("]")
            tree = ("range", tree, window, step)
        if self.has("offset"):
            self.take()
            tree = ("offset", tree, _seconds(self.take()))
        return tree

    def atom(self) -> Any:
        if self.has("("):
            self.take()
            tree = self.logical()
            self.take(")")
            return tree
        name = self.take()
        if name[0].isdigit():
            return ("number", float(name))
        by: list[str] = []
        if self.has("by"):
            self.take()
            self.take("(")
            by.append(self.take())
            self.take(")")
        if self.has("("):
            self.take()
            arguments = [self.logical()]
            while self.has(","):
                self.take()
                arguments.append(self.logical())
            self.take(")")
            return ("call", name, by, arguments)
        wanted = []
        if self.has("{"):
            self.take()
            while not self.has("}"):
                wanted.append((self.take(), self.take("=", "=~"), self.take().strip('"')))
                if self.has(","):
                    self.take()
            self.take("}")
        return ("series", name, wanted)


def evaluate(tree: Any, data: Recorded, at: float) -> Vector:
    match tree:
        case ("number", value):
            return {frozenset(): value}
        case ("or", left, right):
            found = evaluate(left, data, at)
            return {**evaluate(right, data, at), **found}
        case ("and", left, right):
            return evaluate(left, data, at) if evaluate(right, data, at) else {}
        case ("compare", how, left, right):
            return {key: v for key, v in evaluate(left, data, at).items() if _COMPARE[how](v, right)}
        case ("truth", how, left, right):
            return {key: float(_COMPARE[how](v, right)) for key, v in evaluate(left, data, at).items()}
        case ("series", _, wanted):
            assert ("monitored_resource", "=", "instance_group") in wanted
            known = [vms for since, vms in data.vms if since <= at]
            return {frozenset({("instance_group_name", "group")}): float(known[-1])} if known else {}
        case ("call", "vector", _, [("number", value)]):
            return {frozenset(): value}
        case ("call", "sum", by, [inner]):
            return _sum(evaluate(inner, data, at), by)
        case ("call", "increase", _, [("offset", inner, ago)]):
            return evaluate(("call", "increase", [], [inner]), data, at - ago)
        case ("call", "increase", _, [("range", ("series", name, wanted), window, _)]):
            return _increase(data, name, wanted, at - window, at)
        case ("call", "min_over_time" | "sum_over_time" as name, _, [("range", inner, window, step)]):
            points = [evaluate(inner, data, at - step * n) for n in range(int(window // step))]
            keys = {key for point in points for key in point}
            over = min if name == "min_over_time" else sum
            return {key: float(over(point[key] for point in points if key in point)) for key in keys}
        case ("call", "histogram_quantile", _, [("number", quantile), inner]):
            buckets = {float(dict(key)["le"]): v for key, v in evaluate(inner, data, at).items()}
            total = max(buckets.values(), default=0.0)
            reached = [le for le in sorted(buckets) if buckets[le] >= quantile * total]
            return {frozenset(): reached[0]} if total else {}
    raise AssertionError(f"not known here: {tree}")


def _sum(vector: Vector, by: list[str]) -> Vector:
    out: Vector = {}
    for labels, value in vector.items():
        key = frozenset((name, text) for name, text in labels if name in by)
        out[key] = out.get(key, 0.0) + value
    return out


def _increase(data: Recorded, series: str, wanted: list[tuple[str, str, str]], after: float, until: float) -> Vector:
    suffix = next((end for end in ("_count", "_sum", "_bucket") if series.endswith(end)), "")
    name = series.removesuffix(suffix)
    metric = data.metrics[name]
    assert bool(metric.value) == bool(suffix), f"{series}: of a distribution only _count, _sum and _bucket exist"
    asked = {key: text for key, _, text in wanted if key != "monitored_resource"}
    assert set(asked) <= {metric.label}
    out: Vector = {}
    for at, labels, value in data.events.get(name, []):
        if not after < at <= until or any(labels.get(key) != text for key, text in asked.items()):
            continue
        scale = metric.scale
        ends = [scale.smallest * scale.growth**n for n in range(scale.count + 1)] + [float("inf")]
        for le in [end for end in ends if value <= end] if suffix == "_bucket" else [None]:
            key = frozenset((labels | ({"le": str(le)} if le is not None else {})).items())
            out[key] = out.get(key, 0.0) + (value if suffix == "_sum" else 1.0)
    return out


def _seconds(text: str) -> float:
    return float(text[:-1]) * _SECONDS[text[-1]]
