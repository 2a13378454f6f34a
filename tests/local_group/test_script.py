from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from infra.local.script import Happening, ScriptError, draw_script, read_script


def test_a_script_is_read_with_units_and_in_the_order_of_its_times(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text("- {at: 2 h, do: stock_out, for: 90 min}\n- {at: 30, do: preempt, notice: 120 s, vm: 1}\n")
    assert read_script(path) == [
        Happening(at=30.0, do="preempt", notice=120.0, vm=1),
        Happening(at=7200.0, do="stock_out", lasting=5400.0),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{at: 1, do: stock_out}", "stock_out needs `for`"),
        ("{at: 1, do: power_cut, for: 1 s}", "power_cut does not take `for`"),
        ("{at: 1, do: power_cut, notice: 1 s}", "power_cut does not take `notice`"),
        ("{at: 1, do: explode}", "explode"),
        ("{at: -1, do: preempt}", "greater than or equal to 0"),
        ("{at: 1, do: preempt, when: 2}", "when"),
        ("{at: [", "script.yaml"),
    ],
)
def test_what_a_script_can_t_mean_is_refused_with_the_reason(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(f"- {line}\n")
    with pytest.raises(ScriptError, match=r"script\.yaml") as refused:
        read_script(path)
    assert says in str(refused.value)


def test_the_same_seed_draws_the_same_script_and_another_one_another() -> None:
    draws = [draw_script(seed=seed, days=7, per_day={"preempt": 2.0, "stock_out": 1.0}) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_a_drawn_script_has_its_rates_and_the_gaps_of_a_poisson_process() -> None:
    script = draw_script(seed=1, days=2000, per_day={"preempt": 3.0, "power_cut": 1.0})
    preemptions = [event.at for event in script if event.do == "preempt"]
    assert len(preemptions) / 2000 == pytest.approx(3.0, rel=0.05)
    assert len(script) / 2000 == pytest.approx(4.0, rel=0.05)
    gaps = [later - earlier for earlier, later in pairwise(preemptions)]
    mean = sum(gaps) / len(gaps)
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)  # 1/e
