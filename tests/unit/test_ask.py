"""What a request's names and rates come to."""

from __future__ import annotations

import pytest

from suite.ask import expand, expand_names
from suite.errors import RequestError
from suite.reducers import list_reducers, reducer_class
from suite.spec import make_spec


def test_training_free_names_every_method_that_learns_nothing_and_no_other():
    names = expand_names(("training-free",))
    assert set(names) == {name for name in list_reducers() if not reducer_class(name).learned} - {"none"}
    assert {"tome", "mctf", "pitome"} <= set(names)
    assert names.keys().isdisjoint({"dtem", "dtps", "sinkhorn"})
    assert not any(names.values())  # a rate that one of them cannot do is left out, not refused


def test_a_name_beside_a_set_of_names_stays_named():
    names = expand_names(("training-free", "evit", "dtem"))
    assert names["evit"]
    assert names["dtem"]
    assert not names["tome"]


def test_a_wildcard_that_matches_nothing_is_refused_with_what_there_is():
    with pytest.raises(RequestError, match=r"no reducer matches 'xyz\*'; known: none, ats, "):
        expand_names(("xyz*",))


def test_the_unreduced_model_is_asked_for_first_and_once():
    asks, _ = expand(make_spec({"reducers": ["none", "tome"], "rates": ["r=1", "r=2"]}))
    assert [(ask.reducer, ask.rate) for ask in asks] == [("none", ""), ("tome", "r=1"), ("tome", "r=2")]
