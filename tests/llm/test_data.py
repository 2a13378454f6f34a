import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spot_training.passing import Passes

from workloads.errors import DataError
from workloads.llm.data import IGNORED, Batches, Rows, eval_batches, split_rows

PRINT = {"tokens": "a", "tokenizer": "b", "sequence_length": 4, "eval_fraction": 0.0, "about": {}}


def make_rows(tokens: int, length: int = 4) -> Rows:
    return Rows(np.arange(tokens, dtype=np.uint16), length)


def make_batches(rows: int = 10, **changes: int) -> Batches:
    given_ = {"seed": 1, "global_batch": 4, "micro_batch": 1} | changes
    return Batches(make_rows(4 * rows + 1), fingerprint=PRINT, **given_)


def rows_of(batches: Batches, steps: int) -> list[int]:
    """The rows that are handed out: the first token of each says which it is."""
    return [
        int(first) // 4 for _ in range(steps) for inputs, _ in next(batches).micro_batches for first in inputs[:, 0]
    ]


@given(tokens=st.integers(2, 200), length=st.integers(1, 20))
@settings(deadline=None, max_examples=50)
def test_every_token_but_the_first_is_predicted_exactly_once(tokens: int, length: int) -> None:
    rows = make_rows(tokens, length)
    indices = np.arange(len(rows))
    inputs, targets = rows.batch(indices)

    predicted = targets[targets != IGNORED]

    assert predicted.tolist() == list(range(1, tokens))
    assert inputs[targets != IGNORED].tolist() == list(range(tokens - 1))
    assert rows.targets_in(indices) == tokens - 1


@given(tokens=st.integers(20, 400), length=st.integers(1, 9), fraction=st.sampled_from([0.0, 0.01, 0.1, 0.5]))
@settings(deadline=None, max_examples=50)
def test_training_and_evaluation_share_no_target_and_lose_none(tokens: int, length: int, fraction: float) -> None:
    train, held_out = split_rows(np.arange(tokens, dtype=np.uint16), length, fraction)

    targets = [rows.batch(np.arange(len(rows)))[1] for rows in (train, held_out)]

    assert [t for part in targets for t in part[part != IGNORED].tolist()] == list(range(1, tokens))
    assert (len(held_out) > 0) == (fraction > 0)


def test_text_too_short_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match=r"5 tokens are 1 rows of 8.*shorter data\.sequence_length"):
        split_rows(np.arange(5, dtype=np.uint16), 8, 0.1)


def test_an_epoch_has_every_sample_exactly_once_and_the_next_has_them_in_another_order() -> None:
    seen = rows_of(make_batches(rows=10), steps=5)

    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_order_depends_on_seed_and_epoch_alone() -> None:
    fresh, used = make_batches(rows=10), make_batches(rows=10)
    rows_of(used, steps=30)

    assert used.order(1).tolist() == fresh.order(1).tolist()
    assert fresh.order(1).tolist() != fresh.order(2).tolist()
    assert fresh.order(1).tolist() != make_batches(rows=10, seed=2).order(1).tolist()


def test_order_is_the_one_that_earlier_versions_had() -> None:
    """Runs that are under way when the project or NumPy is updated go on with their own order."""
    assert make_batches(rows=8, seed=7).order(3).tolist() == [4, 2, 7, 0, 5, 3, 1, 6]


@given(cut=st.integers(0, 12))
@settings(deadline=None)
def test_resuming_anywhere_gives_what_the_straight_run_gets(cut: int) -> None:
    straight = rows_of(make_batches(), steps=12)
    first, second = make_batches(), make_batches()
    before = rows_of(first, steps=cut)

    second.load_state_dict(first.state_dict())

    assert before + rows_of(second, steps=12 - cut) == straight


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_global_batch_is_the_same_at_every_world_size(world_size: int) -> None:
    ranks = [make_batches(rank=rank, world_size=world_size) for rank in range(world_size)]

    shared = [row for _ in range(7) for rank in ranks for row in rows_of(rank, steps=1)]

    assert shared == rows_of(make_batches(), steps=7)


def test_state_goes_on_at_another_world_size() -> None:
    straight = rows_of(make_batches(), steps=6)
    one = make_batches()
    before = rows_of(one, steps=2)

    two = [make_batches(rank=rank, world_size=2) for rank in range(2)]
    for rank in two:
        rank.load_state_dict(one.state_dict())

    assert before + [row for _ in range(4) for rank in two for row in rows_of(rank, steps=1)] == straight


def test_targets_are_counted_over_all_ranks() -> None:
    rows = make_rows(4 * 3 + 2)  # the fourth row has one target
    ranks = [
        Batches(rows, seed=0, fingerprint=PRINT, global_batch=4, micro_batch=1, rank=rank, world_size=2)
        for rank in range(2)
    ]
    assert [next(rank).targets for rank in ranks] == [13, 13]


def test_batch_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(DataError, match="global_batch 4 is not a multiple of 3"):
        make_batches(micro_batch=3)


def test_changed_seed_is_refused() -> None:
    state = make_batches(seed=1).state_dict()
    with pytest.raises(DataError, match=r"training\.seed was 1 and is 2.*new run_id|new run"):
        make_batches(seed=2).load_state_dict(state)


def test_evaluation_has_the_same_rows_every_time() -> None:
    rows = make_rows(4 * 5 + 1)
    assert [inputs[:, 0].tolist() for inputs, _ in eval_batches(rows, micro_batch=2, count=9)] == [
        [0, 4],
        [8, 12],
        [16],
    ]
    assert [len(inputs) for inputs, _ in eval_batches(rows, micro_batch=2, count=1)] == [2]


def test_a_copy_of_the_batches_is_none_of_the_tokens() -> None:
    """The session copies what it tracks to try a load, and the tokens may be larger than memory."""
    batches = make_batches()
    twin = copy.deepcopy(batches)
    next(twin)
    assert twin.rows is batches.rows
    assert (twin.samples, batches.samples) == (4, 0)


@given(spans=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=3), cut=st.integers(0, 12))
@settings(deadline=None, max_examples=40)
def test_what_is_passed_over_is_never_handed_out_and_nothing_else_is_missed(
    spans: list[tuple[int, int]], cut: int
) -> None:
    passed = [(start, start + length) for start, length in spans]
    straight = rows_of(make_batches(), 40)
    wanted = [row for at, row in enumerate(straight) if not any(start <= at < end for start, end in passed)]

    batches = make_batches()
    assert isinstance(batches, Passes), "what a session asks for"
    batches.pass_over(passed)
    got = rows_of(batches, cut)
    resumed = make_batches()
    resumed.load_state_dict(batches.state_dict())
    resumed.pass_over(passed)
    got += rows_of(resumed, 15 - cut if cut < 15 else 0)

    assert got == wanted[: len(got)]
    assert len(got) == 60
