"""A rate is a value: read in one place, printed by itself, and accepted or refused by its form alone."""

import ast
import re
from pathlib import Path

import pytest

from reports.order import rate_order
from suite import RequestError
from suite.rates import rate as rates
from suite.rates.rate import (
    FlopsTarget,
    FractionPerBlock,
    GridLines,
    ImageSide,
    KeptFraction,
    LearnedPlan,
    MergedPortion,
    PatchGrid,
    Rate,
    RateOfBlocks,
    SimilarityThreshold,
    TokensPerBlock,
    parse_rate,
    parse_target,
    rate_text,
    stored_rate,
)
from suite.rates.schedule import check_form
from suite.reducers import list_reducers, make_reducer
from suite.reducers.plugins import FORMS
from suite.sweep.spec import RunSpec, make_spec
from suite.train.recipe import make_recipe

ROOT = Path(__file__).parents[2]
PLAINEST = {
    "r=13": TokensPerBlock(13),
    "r=13@3,6,9": TokensPerBlock(13, blocks=(3, 6, 9)),
    "r=16:-1": TokensPerBlock(16, -1.0),
    "r=16:0.5": TokensPerBlock(16, 0.5),
    "r=[16,16,8]": TokensPerBlock((16, 16, 8)),
    "r=0.35@3,6,9": FractionPerBlock(0.35, blocks=(3, 6, 9)),
    "keep=0.7": KeptFraction(0.7),
    "keep=1": KeptFraction(1.0),
    "keep=0.3001@3": KeptFraction(0.3001, blocks=(3,)),
    "keep=[0.7,0.5,0.25]": KeptFraction((0.7, 0.5, 0.25)),
    "keep=[0.9,0.5]@3,6": KeptFraction((0.9, 0.5), blocks=(3, 6)),
    "merge=0.3": MergedPortion(0.3),
    "merge=0.5@3,6": MergedPortion(0.5, blocks=(3, 6)),
    "lines=2": GridLines(2, 2),
    "lines=[4,3]@1": GridLines(4, 3, blocks=(1,)),
    "tau=0.9": SimilarityThreshold(0.9),
    "tau=[0.95,0.9,1]@0,1,2": SimilarityThreshold((0.95, 0.9, 1.0), blocks=(0, 1, 2)),
    "side=160": ImageSide(160),
    "grid=10": PatchGrid(10),
    "plan=2": LearnedPlan(2),
    "flops=-35.00%": FlopsTarget(-0.35),
}
WRITTEN_OTHERWISE = {
    " r = 13 ": "r=13", "r=[16, 16, 8,]": "r=[16,16,8]", "r=16:-1.0": "r=16:-1", "r=.35 @ 3,6,9": "r=0.35@3,6,9",
    "lines=[4,3,] @ 1": "lines=[4,3]@1", "tau=.9": "tau=0.9",
    "keep=.70": "keep=0.7", "keep=1.": "keep=1", "merge=+.3": "merge=0.3", "flops=-35%": "flops=-35.00%",
    "flops=-0.35": "flops=-35.00%",
}  # fmt: skip


def forms(cls=Rate):
    """The classes that rates are of."""
    return {sub for direct in cls.__subclasses__() for sub in (direct, *forms(direct))} - {RateOfBlocks}


@pytest.mark.parametrize("text", PLAINEST)
def test_every_form_prints_as_what_it_is_read_from(text):
    read, made = parse_rate(text), PLAINEST[text]
    assert (read, str(read), str(made)) == (made, text, text)
    assert hash(read) == hash(made)
    assert text in repr(read)


def test_all_forms_are_tried_above():
    assert {type(rate) for rate in PLAINEST.values()} == forms()


@pytest.mark.parametrize("text", WRITTEN_OTHERWISE)
def test_a_rate_keeps_the_text_that_it_was_written_in_and_means_the_same(text):
    read, same = parse_rate(text), parse_rate(WRITTEN_OTHERWISE[text])
    assert str(read) == text
    assert (read, hash(read), read.strength) == (same, hash(same), same.strength)


def test_no_rate_is_stored_as_no_text():
    assert stored_rate("") is None
    assert rate_text(None) == ""
    assert rate_text(stored_rate("keep=.70")) == "keep=.70"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TokensPerBlock(-1), "rate 'r=-1' asks for -1 tokens"),
        (lambda: TokensPerBlock(8, 2.0), r"rate 'r=8:2': the inflection must lie in \[-1, 1\], not 2"),
        (lambda: KeptFraction(0.0), r"rate 'keep=0': the kept fraction must lie in \(0, 1\], not 0"),
        (lambda: MergedPortion(1.0), r"rate 'merge=1': the portion of tokens taken out must lie in \[0, 1\), not 1"),
        (lambda: GridLines(2, -1), r"rate 'lines=\[2,-1\]' asks for a negative number of lines"),
        (lambda: SimilarityThreshold(1.5), r"rate 'tau=1.5': a threshold is a cosine, in \[-1, 1\], not 1.5"),
        (lambda: LearnedPlan(0), "rate 'plan=0': plans count from 1"),
        (lambda: FlopsTarget(0.1), "rate 'flops=10.00%': write the change of total FLOPs"),
    ],
)
def test_a_computed_rate_that_means_nothing_is_refused_as_a_written_one_is(make, said):
    with pytest.raises(RequestError, match=said):
        make()


# requests


def test_a_spec_holds_values_and_is_stored_as_the_text_that_was_asked_for():
    spec = make_spec({"rates": "r = 8, keep=.70@3,6", "flops": [-0.35, "-60%"], "reducers": "evit"})
    assert spec.rates == (TokensPerBlock(8), KeptFraction(0.7, blocks=(3, 6)))
    assert spec.flops == (FlopsTarget(-0.35), FlopsTarget(-0.6))
    stored = spec.model_dump(mode="json")
    assert (stored["rates"], stored["flops"]) == (["r = 8", "keep=.70@3,6"], ["-0.35", "-60%"])
    assert [str(target) for target in spec.flops] == ["flops=-0.35", "flops=-60%"]
    assert RunSpec(**stored) == spec
    assert make_spec(spec.model_dump()) == spec


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rates": "r=8,tome"}, "rate 'tome' cannot be read; write for example r=13"),
        ({"flops": "-35%,half"}, "rate 'flops=half' cannot be read"),
        ({"rates": [{"r": 8}]}, r"rates.0=\{'r': 8\} is not valid: input should be a valid string"),
    ],
)
def test_what_is_no_rate_is_refused_where_it_is_asked_for(values, said):
    with pytest.raises(RequestError, match=said):
        make_spec(values)


def test_a_recipe_holds_a_value_and_is_stored_as_its_text():
    recipe = make_recipe("diffrate", rate="r = 2", targets="-35%,-0.5")
    assert recipe.rate == TokensPerBlock(2)
    assert recipe.targets == (FlopsTarget(-0.35), FlopsTarget(-0.5))
    stored = recipe.model_dump(mode="json")
    assert (stored["rate"], stored["targets"]) == ("r = 2", ["-35%", "-0.5"])
    assert make_recipe("mctf").model_dump(mode="json")["rate"] == "r=16"


# what methods accept


def test_the_names_that_a_method_may_declare_are_forms_of_rates():
    assert set(FORMS) < {form.form for form in forms()}


@pytest.mark.parametrize("rate", [rate for rate in PLAINEST.values() if not rate.is_zero], ids=str)
@pytest.mark.parametrize("name", list_reducers())
def test_a_form_that_a_method_does_not_declare_is_refused_with_those_that_it_does(name, rate):
    made = make_reducer(name)
    if rate.form in made.rates or (rate.form == "flops" and made.rates):
        check_form(rate, made)
        return
    takes = " or ".join(f"{form}=..." for form in (*made.rates, "flops"))
    said = f"reducer {name!r} is not defined for rate {rate}; it takes {takes}"
    if not made.rates:
        said = f"reducer {name!r} takes no rate, but {rate} was asked"
    elif rate.form == "plan":
        said = f"rate {rate}: reducer {name!r} has learned no plans; give weights that hold some"
    with pytest.raises(RequestError, match=f"^{re.escape(said)}$"):
        check_form(rate, made)


def test_a_method_with_a_schedule_of_its_own_refuses_every_rate_in_the_same_words():
    made = make_reducer("diffrate", prune_kept=[9, 8], merge_kept=[8, 7])
    for rate in PLAINEST.values():
        with pytest.raises(
            RequestError, match=rf"was given a plan of its own; leave the rate {re.escape(str(rate))} out"
        ):
            check_form(rate, made)


# order


def test_rows_stand_from_the_weakest_to_the_strongest_and_what_cannot_be_read_first():
    texts = [
        "", "by hand", "flops=-20%", "flops=-0.5", "flops=-60%", "keep=0.9", "keep=[0.9,0.5]@3,6", "keep=.5",
        "merge=0.3", "plan=1", "plan=10", "r=0.35", "r=[8,4,0]", "r=8:-1", "r=8@1", "r=13",
    ]  # fmt: skip
    assert sorted(set(texts), key=rate_order) == texts
    costs = {"r=8": 1.0, "r=13": 2.0}
    assert sorted(costs, key=lambda text: rate_order(text, costs[text])) == ["r=13", "r=8"]


# one place

TEXT = re.compile(r"^\s*(r|keep|merge|lines|tau|plan|flops)=")


def builds_or_takes_apart(node):
    """Whether code makes a rate's text of parts, or looks for the parts of one."""
    if isinstance(node, ast.JoinedStr):
        written = [part.value for part in node.values if isinstance(part, ast.Constant)]
        message = any(" " in part for part in written)
        return not message and bool(written) and isinstance(node.values[0], ast.Constant) and TEXT.match(written[0])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        asked = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        of = ast.unparse(node.func.value)
        whose_rate = re.search(r"(?<!learning_)\brate\b", of)
        cuts = node.func.attr in ("split", "partition", "rpartition", "rsplit", "removeprefix", "startswith")
        return bool(cuts and (whose_rate or any(TEXT.match(part) for part in asked)))
    return False


def test_only_one_module_knows_how_a_rate_is_written():
    here = Path(rates.__file__)
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for top in ("suite", "tasks", "reports")
        for file in (ROOT / top).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if file != here and builds_or_takes_apart(node)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        'rate.startswith("flops")', 'ask.rate.partition("=")', 'text.removeprefix("flops=")', 'f"r={r}"',
        'f"keep={keep:g}{at}"',
    ],
)  # fmt: skip
def test_code_that_writes_or_reads_a_rate_elsewhere_would_be_found(code):
    assert any(builds_or_takes_apart(node) for node in ast.walk(ast.parse(code)))


def test_a_target_is_read_as_the_rate_that_it_is():
    assert parse_target("-35%") == parse_rate("flops=-35%") == FlopsTarget(-0.35)
    assert parse_target("-35%").amount == "-35%"
    assert FlopsTarget(-0.3392).amount == "-33.92%"
