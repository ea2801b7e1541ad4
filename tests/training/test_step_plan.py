"""The plan of a run says of every dispatch what follows it."""

from hypothesis import given
from hypothesis import strategies as st

from aver_jax.training.step_plan import Chunk, Plan


def test_a_dispatch_ends_at_a_validation_and_at_the_end():
    plan = Plan(per_epoch=5, total=12, per_validation=5, per_dispatch=4, per_log=3)
    assert list(plan.chunks(0)) == [
        Chunk(1, 4, (3,), False, False),
        Chunk(5, 5, (), True, False),
        Chunk(6, 9, (6, 9), False, False),
        Chunk(10, 10, (), True, False),
        Chunk(11, 11, (), False, False),
        Chunk(12, 12, (12,), True, True),
    ]


numbers = st.integers(1, 40)


@given(total=numbers, per_validation=numbers, per_dispatch=numbers, per_log=numbers, data=st.data())
def test_every_step_is_done_once_and_a_resumed_run_logs_and_validates_at_the_same_steps(
    total, per_validation, per_dispatch, per_log, data
):
    plan = Plan(10, total, per_validation, per_dispatch, per_log)
    chunks = list(plan.chunks(0))
    assert [n for c in chunks for n in range(c.first, c.last + 1)] == list(range(1, total + 1))
    assert {c.size for c in chunks} <= {1, per_dispatch}
    validated = [n for n in range(1, total + 1) if n % per_validation == 0 or n == total]
    assert [c.last for c in chunks if c.validates] == validated
    assert [n for c in chunks for n in c.logged] == [
        n for n in range(1, total + 1) if n % per_log == 0 or n == total
    ]
    assert [c.is_final for c in chunks] == [False] * (len(chunks) - 1) + [True]
    start = data.draw(st.sampled_from([c.last for c in chunks]))
    left = list(plan.chunks(start))
    assert [c.last for c in left if c.validates] == [n for n in validated if n > start]
    assert [n for c in left for n in c.logged] == [n for c in chunks for n in c.logged if n > start]
