import math

import numpy as np
import pytest

from ppl_vae.errors import UsageError
from ppl_vae.schedules import (
    Constant,
    Cosine,
    Cyclical,
    Linear,
    Plateau,
    StepTable,
    as_schedule,
    iwae_table,
    text_of,
)

EVERY = [
    Constant(0.5),
    Linear(0, 1, 10),
    Cyclical(0, 1, 40, 4, 0.5),
    Cosine(1e-3, 1e-5, 100, 10),
    StepTable((1.0, 0.5, 0.25), (3, 7)),
    Plateau(1e-3, 0.5, 3, 0.1, 1e-5),
]


def test_linear_is_exact_at_both_ends_and_stays():
    warm_up = Linear(0.1, 1e-5, 10)
    assert [warm_up(step) for step in (0, 10, 11, 10**9)] == [0.1, 1e-5, 1e-5, 1e-5]
    assert Linear(0, 1, 4)(1) == 0.25


def test_cyclical_repeats_and_ends_on_the_plateau():
    schedule = Cyclical(0, 1, 40, cycles=4, ratio=0.5)
    one_cycle = [0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1]
    assert [schedule(step) for step in range(40)] == pytest.approx(one_cycle * 4, abs=1e-15)
    assert [schedule(step) for step in (40, 41, 1000)] == [1, 1, 1]


def test_cyclical_rises_to_its_last_step():
    assert Cyclical(0, 1, 10, cycles=1, ratio=1.0)(9) == pytest.approx(0.9)
    assert Cyclical(0, 1, 10, cycles=1, ratio=1.0)(10) == 1


def test_cyclical_starts_each_cycle_at_the_first_step_when_cycles_do_not_divide_the_steps():
    schedule = Cyclical(0, 1, 10, cycles=3, ratio=1.0)
    assert [schedule(step) for step in range(4)] == pytest.approx([0, 0.3, 0.6, 0.9])
    assert schedule(4) == pytest.approx(0.2)  # step 4 is 2/3 of a step into the second cycle of 10/3 steps


def test_cosine_values():
    schedule = Cosine(1e-3, 1e-5, 100)
    assert schedule(0) == 1e-3
    assert schedule(50) == pytest.approx((1e-3 + 1e-5) / 2, rel=1e-12)
    assert schedule(25) == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 + math.sqrt(0.5)) / 2, rel=1e-12)
    assert schedule(100) == schedule(1000) == 1e-5


def test_cosine_warm_up_rises_from_zero_to_the_start():
    schedule = Cosine(1e-3, 0.0, 110, warm_up=10)
    assert schedule(0) == 0
    assert schedule(5) == pytest.approx(5e-4)
    assert schedule(10) == 1e-3
    assert schedule(60) == pytest.approx(5e-4)


@pytest.mark.parametrize(
    ("factor", "patience", "threshold", "minimum"),
    [(0.5, 0, 0.0, 0.0), (0.3, 2, 0.5, 0.02), (0.9, 3, 2.0, 0)],
)
def test_a_plateau_is_torchs(factor, patience, threshold, minimum):
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", factor, patience, threshold, "abs", min_lr=minimum, eps=0.0
    )
    schedule = Plateau(1.0, factor, patience, threshold, minimum)
    state, rates = schedule.first(), []
    for bound in [*np.random.default_rng(0).normal(-90, 2, 40), math.nan, -math.inf, -80.0, -80.0, -80.0]:
        theirs.step(bound)
        state = schedule.after(state, bound)
        rates.append(state["value"])
        assert rates[-1] == optimizer.param_groups[0]["lr"]
    assert len(set(rates)) > 3 and rates[-1] >= minimum


def test_table_changes_at_its_boundaries():
    schedule = StepTable((1.0, 0.5, 0.25), (3, 7))
    assert [schedule(step) for step in (0, 2, 3, 6, 7, 100)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_iwae_table_is_the_papers():
    schedule = iwae_table(steps_per_pass=10)
    assert len(schedule.values) == 8
    assert schedule.boundaries == (10, 40, 130, 400, 1210, 3640, 10930)  # 3**i passes a stage
    assert schedule.values[0] == 1e-3
    assert schedule.values[-1] == pytest.approx(1e-4)
    assert [round(value * 1e4, 1) for value in schedule.values] == [10, 7.2, 5.2, 3.7, 2.7, 1.9, 1.4, 1]


@pytest.mark.parametrize("schedule", EVERY, ids=str)
def test_the_text_form_gives_the_same_schedule(schedule):
    assert as_schedule(str(schedule)) == schedule
    assert as_schedule(schedule) is schedule


class Halving:
    """A schedule of one's own."""

    def __call__(self, step):
        return 0.5**step

    def check_fits(self, max_steps):
        pass


class Steeper(Linear):
    """Its text would give a Linear."""


def test_a_text_is_given_only_where_it_gives_an_equal_schedule():
    for value in (*EVERY, 0.5, 1e-3, 3, "linear:0:1:10"):
        assert as_schedule(text_of(value)) == as_schedule(value)
    for own, name in ((Halving(), "<Halving>"), (Steeper(0, 1, 10), "<Steeper>")):
        assert as_schedule(own) is own and text_of(own) == name
        with pytest.raises(UsageError, match=f"the schedule {name} was an object of a class of Python: give"):
            as_schedule(name)


def test_a_function_is_no_schedule():
    with pytest.raises(UsageError, match=r"a function is no schedule: write .* check_fits\(max_steps\)$"):
        as_schedule(lambda step: 0.5**step)


@pytest.mark.parametrize("schedule", EVERY, ids=str)
def test_nothing_changes_after_total(schedule):
    values = {schedule(schedule.total + extra) for extra in (0, 1, 17, 1000)}
    assert len(values) == 1
    if schedule.total:
        assert schedule(schedule.total - 1) != schedule(schedule.total) or isinstance(schedule, Cyclical)


@pytest.mark.parametrize("schedule", [one for one in EVERY if one.total], ids=str)
def test_a_schedule_longer_than_the_run_is_refused(schedule):
    schedule.check_fits(schedule.total)
    with pytest.raises(UsageError, match=f"longer than the run of {schedule.total - 1} steps"):
        schedule.check_fits(schedule.total - 1)


def test_short_texts():
    assert as_schedule("0.5") == as_schedule(0.5) == Constant(0.5)
    assert as_schedule("linear:0:1:1e3") == Linear(0, 1, 1000)
    assert as_schedule("cosine:1e-3:1e-5:20000") == Cosine(1e-3, 1e-5, 20000, 0)
    assert as_schedule("cyclical:0:1:100") == Cyclical(0, 1, 100, 4, 0.5)
    assert as_schedule("iwae:500") == iwae_table(500)
    assert as_schedule("plateau:1e-3") == Plateau(1e-3, 0.1, 10, 0.0, 0.0)


@pytest.mark.parametrize(
    "value",
    [
        "nonsense",
        "quadratic:0:1:10",
        "linear:0:1",
        "linear:0:1:0",
        "linear:0:1:2.5",
        "linear:0:nan:10",
        "linear:0:1:10:7",
        "linear:0::10",
        "cosine:1:0:10:10",
        "cyclical:0:1:10:0",
        "cyclical:0:1:10:2:1.5",
        "table:1:5:2:5:3",
        "table:1:5",
        "plateau:1:1",
        "plateau:1:0.5:-1",
        "plateau:1:0.5:1.5",
        "plateau:1:0.5:1:-1",
        "plateau:1:0.5:1:0:2",
        "",
        float("inf"),
        True,
        None,
        [1.0],
        Linear,
    ],
)
def test_what_makes_no_sense_is_refused(value):
    with pytest.raises(UsageError):
        as_schedule(value)


def test_errors_name_the_text_and_the_forms():
    with pytest.raises(
        UsageError, match=r"unknown schedule 'quadratic:0:1:10': write a number, linear:0:1:1000"
    ):
        as_schedule("quadratic:0:1:10")
    with pytest.raises(
        UsageError, match=r"schedule 'linear:0:1:0': steps=0: must be a whole number of at least 1"
    ):
        as_schedule("linear:0:1:0")


def test_traced_and_tensor_steps_agree_with_host_steps():
    import jax
    import torch

    for schedule in (Linear(0, 1, 10), Cyclical(0, 1, 40, 4, 0.5)):
        host = [schedule(step) for step in range(60)]
        assert jax.jit(jax.vmap(schedule))(jax.numpy.arange(60)).tolist() == pytest.approx(host, abs=1e-6)
        assert schedule(torch.arange(60)).tolist() == pytest.approx(host, abs=1e-6)
