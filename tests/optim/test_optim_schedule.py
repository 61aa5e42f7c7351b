"""The learning rate over time."""

import json
import math

import pytest

from refimpl.optim import schedule
from refimpl.support.errors import UserError


def rates(plan, steps, steps_per_epoch):
    return [plan.rate(step, steps_per_epoch) for step in range(steps)]


def test_constant_rate_is_constant():
    assert rates(schedule.Constant(0.25), 5, 2) == [0.25] * 5


def test_warm_up_is_a_line_that_ends_at_the_full_rate_and_never_starts_at_zero():
    assert rates(schedule.Constant(1.0, warmup=2), 6, 2) == [0.25, 0.5, 0.75, 1, 1, 1]
    assert rates(schedule.Constant(1.0, warmup=0.5), 3, 4) == [0.5, 1, 1]
    assert rates(schedule.Constant(1.0, warmup=0.1), 2, 1) == [1, 1]


def test_step_schedule_falls_every_so_many_epochs():
    plan = schedule.Step(1.0, every=1.5, decay=0.5)
    assert rates(plan, 8, 2) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_exponential_schedule_falls_by_decay_in_every_epoch():
    got = rates(schedule.Exponential(2.0, decay=0.81), 5, 2)
    for step, want in enumerate([2, 1.8, 1.62, 1.458, 1.3122]):
        assert math.isclose(got[step], want)


def test_warm_up_multiplies_the_decay():
    got = rates(schedule.Exponential(1.0, decay=0.25, warmup=1), 4, 2)
    assert got == [0.5, 0.5, 0.25, 0.125]


def follow(losses, **hyper):
    """Return (accept, stop, next rate) after each loss, until stopped."""
    newbob, told = schedule.Newbob(1.0, **hyper), []
    for loss in losses:
        decision = newbob.decide(loss)
        told.append((*decision, newbob.rate(0, 1)))
        if decision.stop:
            break
    return told


def kaldi(losses, rate=1.0, start=0.01, end=0.001, factor=0.5):
    """Return what Kaldi's train_scheduler.sh does, statement by statement."""
    loss, halving, told = losses[0], 0, []
    for loss_new in losses[1:]:
        loss_prev, accepted = loss, False
        if loss_new < loss:
            loss, accepted = loss_new, True
        rel_impr = (loss_prev - loss) / loss_prev
        if halving == 1 and rel_impr < end:
            told.append((accepted, True, rate))
            break
        if rel_impr < start:
            halving = 1
        if halving == 1:
            rate = rate * factor
        told.append((accepted, False, rate))
    return told


HISTORIES = [
    [4.0, 3.0, 2.0, 1.99, 1.9, 1.85, 1.8499],
    [4.0, 5.0, 3.0, 3.0, 2.0],
    [2.0, 1.9, 1.95, 1.8, 1.799, 1.7, 1.6999],
    [1.0, 1.0, 1.0],
    [1.0, 0.5, math.nan, 0.4, math.nan],
    [1.0, 0.5, math.inf, 0.4, 0.3, 0.2999, 0.1],
    [3.0, 2.98, 2.0, 1.5, 1.0, 0.9999],
]


@pytest.mark.parametrize("losses", HISTORIES)
def test_newbob_decides_as_kaldi_does(losses):
    first, *told = follow(losses)
    assert first == (True, False, 1.0), "the first loss is that of the initial network"
    assert told == kaldi(losses)


def test_newbob_halves_every_epoch_once_it_has_begun():
    told = follow([4.0, 3.99, 3.0, 2.0, 1.0])
    assert [rate for *_, rate in told] == [1.0, 0.5, 0.25, 0.125, 0.0625]


def test_rejected_epoch_is_compared_with_the_last_accepted_one():
    told = follow([2.0, 3.0, 2.5, 1.0])
    assert [accept for accept, *_ in told] == [True, False, False]
    assert told[-1][1], "a second rejection improves by 0, which is less than 0.1 %"


def test_first_loss_that_is_not_a_number_is_rejected():
    assert follow([math.nan, 1.0])[0][0] is False
    assert follow([math.nan, 1.0])[1][0] is True


@pytest.mark.parametrize("losses", HISTORIES)
@pytest.mark.parametrize("name", sorted(schedule.SCHEDULES))
def test_schedule_goes_on_from_its_state_as_json(name, losses):
    one = schedule.make(name, 1.0)
    for number, loss in enumerate(losses):
        other = schedule.make(name, 1.0)
        other.restore(json.loads(json.dumps(one.state(), allow_nan=False)))
        assert other.decide(loss) == one.decide(loss)
        assert other.rate(number, 1) == one.rate(number, 1)
        assert other.state() == one.state()


@pytest.mark.parametrize("name", ["constant", "step", "exponential"])
def test_only_newbob_ever_says_no(name):
    plan = schedule.make(name, 1.0)
    assert [tuple(plan.decide(loss)) for loss in (1.0, 2.0, math.nan)] == [(True, False)] * 3


@pytest.mark.parametrize(
    "name, lr, given, message",
    [
        (
            "cosine",
            1.0,
            {},
            "no schedule 'cosine': choose one of constant, exponential, newbob, step",
        ),
        ("constant", 1.0, {"decay": 0.5}, "schedule constant has no 'decay': it has warmup"),
        ("constant", 0.0, {}, "learning rate 0.0: must be a positive number"),
        ("constant", math.nan, {}, "learning rate nan: must be a positive number"),
        ("step", 1.0, {"every": 0.0}, "a step every 0.0 epochs: must be greater than 0"),
        ("exponential", 1.0, {"decay": 1.5}, "decay 1.5: must be greater than 0 and at most 1"),
        ("newbob", 1.0, {"decay": 1.0}, "decay 1.0: must be greater than 0 and less than 1"),
        ("newbob", 1.0, {"start": 0.0}, "newbob needs 0 <= stop <= start, not 0.001 and 0.0"),
        ("newbob", 1.0, {"warmup": -1}, "warm-up of -1 epochs: must be at least 0"),
    ],
)
def test_wrong_schedules_are_refused(name, lr, given, message):
    with pytest.raises(UserError) as error:
        schedule.make(name, lr, **given)
    assert str(error.value) == message


def test_newbob_compares_with_the_loss_on_the_new_targets_after_they_changed():
    newbob = schedule.make("newbob", 1.0)
    assert newbob.decide(2.0).accept
    newbob.rebase(3.0)
    assert newbob.decide(2.5).accept, "better on the new targets"
    assert not newbob.decide(2.6).accept
