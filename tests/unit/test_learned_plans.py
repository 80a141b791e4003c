"""Plans that DiffRate has learned: read from a file, named by a rate, searched for a FLOPs target."""

import pytest
import torch
from reducer_steps import images, steered, tiny

from suite import RequestError, attach
from suite.attachment.reducer_weights import write_tensors
from suite.measure.flops_target import solve_rate
from suite.measure.rate_search import Search
from suite.rates.rate import LearnedPlan, parse_rate
from suite.rates.schedule import check_form, resolve
from suite.reducers import make_reducer
from suite.reducers.diffrate import DiffRate, together

PLANS = ([[65, 60, 50, 40], [65, 55, 50, 38]], [[50, 40, 30, 20], [45, 40, 25, 20]], [[30, 20, 10, 9], [30, 20, 9, 5]])


def learned(*plans, targets=(-0.2, -0.4, -0.6)):
    """What a weights file holds of plans."""
    return {
        "targets": torch.tensor(targets[: len(plans)], dtype=torch.float64),
        "prune_kept": torch.tensor([prune for prune, _ in plans]),
        "merge_kept": torch.tensor([merge for _, merge in plans]),
    }


def prepared(*plans):
    reducer = make_reducer("diffrate")
    reducer.prepare(learned(*plans))
    return reducer


@torch.no_grad()
def test_a_learned_plan_is_what_it_would_be_as_an_option():
    model, x = tiny(), images()
    for number, (prune, merge) in enumerate(PLANS, start=1):
        with attach(model, "diffrate", None, prune_kept=prune, merge_kept=merge) as handle:
            wanted, counts = model(x), handle.token_counts
        with attach(model, prepared(*PLANS), f"plan={number}") as handle:
            assert handle.reducer.trained
            assert not list(handle.reducer.parameters())
            assert torch.equal(model(x), wanted)
            assert handle.token_counts == handle.planned_counts == counts


def test_handles_of_one_reducer_follow_their_own_plans():
    model, reducer = tiny(), prepared(*PLANS)
    handles = [attach(model, reducer, f"plan={number}") for number in (1,)]
    handles[0].detach()
    handles.append(attach(model, reducer, "plan=3"))
    handles[1].detach()
    for handle, last in zip(handles, (38, 5), strict=True):
        with handle, torch.no_grad():
            model(images())
            assert handle.token_counts[-1] == last


@torch.no_grad()
def test_plans_are_saved_and_read_like_any_weights(tmp_path):
    model, x = tiny(), images()
    with attach(model, prepared(*PLANS), "plan=2") as handle:
        wanted = model(x)
        assert set(handle.reducer.state_dict()) == {"targets", "prune_kept", "merge_kept"}
        write_tensors(tmp_path / "plans.safetensors", handle.reducer.state_dict(), reducer=handle.reducer.name)
    with attach(model, "diffrate", "plan=2", weights=tmp_path / "plans.safetensors") as handle:
        assert handle.reducer.trained
        assert handle.reducer.num_learned_schedules == 3
        assert torch.equal(model(x), wanted)


def test_what_training_learned_becomes_plans_in_order_of_strength():
    states = []
    for target, patches in ((-0.5, 32), (-0.3, 48)):
        with attach(tiny(), "diffrate", "r=1") as handle:
            steered(handle.reducer.prune_counts, [patches] * 4)
            steered(handle.reducer.merge_counts, [patches - 8] * 4)
            states.append(handle.reducer.learned_state(target))
    both = together(*states)
    assert both["targets"].tolist() == [-0.3, -0.5]
    assert both["prune_kept"].tolist() == [[49] * 4, [33] * 4]
    reducer = DiffRate()
    reducer.prepare(both)
    assert reducer.plan(2) == ((33,) * 4, (25,) * 4)


def test_a_flops_target_takes_the_plan_whose_true_cost_is_nearest():
    model, reducer = tiny(), prepared(*PLANS)
    search = Search(model, reducer)
    costs = {number: search.reduction(number) for number in range(4)}
    assert str(search.rate(0)) == "r=0"
    assert costs[0] == 0 > costs[1] > costs[2] > costs[3]
    for number in (1, 2, 3):
        solved = solve_rate(model, reducer, flops=costs[number])
        assert (str(solved.rate), solved.reduction, solved.neighbours) == (f"plan={number}", costs[number], ())
    between = 0.4 * costs[1] + 0.6 * costs[2]
    solved = solve_rate(model, reducer, flops=between)
    assert str(solved.rate) == "plan=2"
    assert solved.neighbours == ((LearnedPlan(1), costs[1]), (LearnedPlan(2), costs[2]))
    assert solve_rate(model, reducer, flops=costs[1] / 4).rate == LearnedPlan(1)  # reducing nothing is no answer
    with pytest.raises(RequestError, match="strongest rate plan=3"):
        solve_rate(model, reducer, flops=costs[3] - 0.05)
    with attach(model, reducer, f"flops={100 * costs[2]:.2f}%") as handle:
        assert handle.planned_counts[-1] == 20


def test_the_nearest_plan_is_found_where_costs_do_not_fall_with_the_targets():
    model, reducer = tiny(), prepared(PLANS[1], PLANS[2], PLANS[0])
    search = Search(model, reducer)
    for number in (1, 2, 3):
        assert search.solve(search.reduction(number)).rate == LearnedPlan(number)


@pytest.mark.parametrize(
    ("rate", "plans", "said"),
    [
        ("plan=1", 0, "has learned no plans"),
        ("plan=4", 3, "takes plan=1 to plan=3 or flops"),
        ("plan=2", 1, "takes plan=1 or flops"),
        ("r=3", 3, "none of what reducer 'diffrate' has learned"),
        ("merge=0.3", 3, "none of what reducer 'diffrate' has learned"),
    ],
)
def test_a_rate_that_is_no_learned_plan_is_refused_in_one_line(rate, plans, said):
    reducer = prepared(*PLANS[:plans]) if plans else make_reducer("diffrate")
    with pytest.raises(RequestError, match=said) as caught:
        check_form(parse_rate(rate), reducer)
    assert "\n" not in str(caught.value)
    check_form(parse_rate("flops=-30%"), reducer)
    check_form(parse_rate("r=0"), reducer)


def test_only_a_method_with_plans_takes_one():
    for name in ("tome", "dtps"):
        with pytest.raises(RequestError, match="has learned no plans"):
            resolve(parse_rate("plan=1"), make_reducer(name), depth=4, tokens=65, num_prefix=1)


@pytest.mark.parametrize("text", ["plan=0", "plan=-1", "plan=1.5", "plan=x", "plan=", "plan=1@2", "plan=[1]"])
def test_a_plan_that_is_no_number_from_one_is_refused_in_one_line(text):
    with pytest.raises(RequestError, match=r"plans count from 1|cannot be read") as caught:
        parse_rate(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"targets": torch.tensor([-0.4, -0.2, -0.6])}, "have to lie between -1 and 0 and to fall"),
        ({"targets": torch.tensor([0.2, -0.2, -0.6])}, "have to lie between"),
        ({"targets": torch.tensor([-0.2, float("nan"), -0.6])}, "have to lie between"),
        ({"targets": torch.tensor([-0.2])}, "1 targets for 3 plans"),
        ({"prune_kept": torch.ones(3, 4)}, "whole numbers of tokens"),
        ({"merge_kept": torch.zeros(3, 4, dtype=torch.int64)}, "whole numbers of tokens"),
        ({"merge_kept": torch.ones(3, 5, dtype=torch.int64)}, r"have to be \(T,\), \(T, L\) and \(T, L\)"),
        ({"targets": torch.tensor(-0.2)}, r"have to be \(T,\)"),
    ],
)
def test_tensors_that_are_no_plans_are_refused_in_one_line(change, said):
    with pytest.raises(ValueError, match=said) as caught:
        make_reducer("diffrate").prepare(learned(*PLANS) | change)
    assert "\n" not in str(caught.value)


def test_plans_of_another_depth_are_refused_in_one_line():
    with pytest.raises(RequestError, match="lists 4 blocks, but the model has 3") as caught:
        attach(tiny(depth=3), prepared(*PLANS), "plan=1")
    assert "\n" not in str(caught.value)


def test_a_plan_where_all_tokens_are_given_back_keeps_its_numbers_in_every_block():
    shape = {"depth": 4, "tokens": 65, "num_prefix": 1, "restored_per_block": True}
    schedule = resolve(LearnedPlan(1), prepared(*PLANS), **shape)
    assert schedule.counts == (65, 55, 50, 38)
    assert schedule.plan == 1
