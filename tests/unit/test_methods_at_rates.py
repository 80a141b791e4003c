"""What a request's names and rates come to."""

from __future__ import annotations

import pytest

from suite.cli.flags import asked
from suite.errors import RequestError
from suite.rates.rate import TokensPerBlock
from suite.reducers import list_reducers, reducer_class
from suite.sweep.cells import expand, expand_names
from suite.sweep.spec import make_spec


def test_training_free_names_every_method_that_learns_nothing_and_no_other():
    methods = expand_names(("training-free",))
    names = {name for name, weights in methods}
    assert names == {name for name in list_reducers() if not reducer_class(name).learned} - {"none"}
    assert {"tome", "mctf", "pitome"} <= names
    assert names.isdisjoint({"dtem", "dtps", "sinkhorn"})
    assert not any(methods.values())  # a rate that one of them cannot do is left out, not refused


def test_a_name_beside_a_set_of_names_stays_named():
    names = expand_names(("training-free", "evit", "dtem"))
    assert names["evit", ""]
    assert names["dtem", ""]
    assert not names["tome", ""]


def test_a_wildcard_that_matches_nothing_is_refused_with_what_there_is():
    with pytest.raises(RequestError, match=r"no reducer matches 'xyz\*'; known: none, adamerge, "):
        expand_names(("xyz*",))


def test_the_unreduced_model_is_asked_for_first_and_once():
    methods, _ = expand(make_spec({"reducers": ["none", "tome"], "rates": ["r=1", "r=2"]}))
    assert [(method.reducer, method.rate) for method in methods] == [
        ("none", None), ("tome", TokensPerBlock(1)), ("tome", TokensPerBlock(2)),
    ]  # fmt: skip


def test_what_was_trained_is_written_behind_a_name(tmp_path):
    names = expand_names(("mctf", "mctf@embedded", "dtem@none", "tome@runs/a@b.safetensors"))
    assert list(names) == [
        ("mctf", ""), ("mctf", "embedded"), ("dtem", "none"), ("tome", "runs/a@b.safetensors"),
    ]  # fmt: skip
    with pytest.raises(RequestError, match=r"'mctf@': write mctf@FILE"):
        expand_names(("mctf@",))


def test_an_embedded_model_brings_what_its_methods_have_learned_unless_told_not_to():
    methods, _ = expand(make_spec({"reducers": ["dtem", "dtem@none", "mctf", "mctf@embedded"], "rates": ["r=4"]}))
    sources = [(method.reducer, method.weights and method.weights[0]) for method in methods[1:]]
    assert sources == [
        ("dtem", "embedded:scenes_vit/dtem"), ("dtem", None), ("mctf", None), ("mctf", "embedded:scenes_vit/mctf"),
    ]  # fmt: skip


@pytest.mark.parametrize(("entry", "said"), [
    ("tofu@embedded", "no weights of 'tofu' come with model 'scenes_vit'"),
    ("tome@nowhere.safetensors", "'nowhere.safetensors' do not exist"),
])  # fmt: skip
def test_weights_that_are_not_there_are_refused_in_one_line(entry, said):
    with pytest.raises(RequestError, match=said) as caught:
        expand(make_spec({"reducers": [entry], "rates": ["r=4"]}))
    assert "\n" not in str(caught.value)


def test_runtimes_are_a_list_and_compile_is_another_word_for_compiled():
    assert make_spec({}).runtime == ("eager",)
    for value in ("eager,compile,graphs", ["eager", "compiled", "graphs"]):
        assert make_spec({"runtime": value}).runtime == ("eager", "compiled", "graphs")
    with pytest.raises(RequestError, match="names nothing"):
        make_spec({"runtime": " "})


@pytest.mark.parametrize(("compile", "runtime"), [(True, "compiled"), (False, "eager")])
def test_a_request_of_before_says_compile_for_what_is_now_a_runtime(compile, runtime, tmp_path):
    assert make_spec({"compile": compile}) == make_spec({"runtime": runtime})
    (tmp_path / "sweep.yaml").write_text(f"compile: {str(compile).lower()}\n")
    assert asked(tmp_path / "sweep.yaml", {"compile": None}) == {"runtime": runtime}


def test_the_flag_overrides_what_the_file_says_of_the_runtime(tmp_path):
    (tmp_path / "sweep.yaml").write_text("runtime: compiled\n")
    assert asked(tmp_path / "sweep.yaml", {"compile": False}) == {"runtime": "eager"}


@pytest.mark.parametrize(("values", "said"), [
    ({"runtime": "onnx"}, "unknown runtime 'onnx'; known: aotinductor, compiled, eager, graphs"),
    ({"compile": True, "runtime": "eager"}, "compile=True stands beside runtime='eager'; leave compile out"),
    ({"compile": "soon"}, "compile='soon' is not valid: write true or false, or name a runtime"),
])  # fmt: skip
def test_a_runtime_that_is_none_is_refused_in_one_line(values, said):
    with pytest.raises(RequestError, match=said):
        make_spec(values)


def test_a_folder_may_be_given_as_a_path(tmp_path):
    asked = {"task": "scenes", "out": tmp_path / "run", "cache": tmp_path}
    assert make_spec(asked) == make_spec({**asked, "out": str(tmp_path / "run"), "cache": str(tmp_path)})
