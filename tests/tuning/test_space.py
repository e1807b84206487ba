"""A search space says what Hydra's grammar says, and every drawn value reaches the job as the value it was."""

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from legradnet.errors import UserError
from legradnet.tuning.space import Space, parameter_of, text_of

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="ascii")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True), inner)
    ),
    max_leaves=5,
)


def parsed(text):
    return OverridesParser.create().parse_override(text)


def searched(text, **more):
    return parameter_of(parsed(text), **more)


def in_memory():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(0))


def drawn_by(one, count=30):
    study = in_memory()
    return [one.suggest(study.ask()) for _ in range(count)]


def value_of(override):
    return parsed(override).value()


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("x=interval(1,10)", FloatDistribution(1, 10)),
        ("x=int(interval(1,10))", IntDistribution(1, 10)),
        ("x=tag(log,interval(1e-5,1e-3))", FloatDistribution(1e-5, 1e-3, log=True)),
        ("x=tag(log,int(interval(1,100)))", IntDistribution(1, 100, log=True)),
        ("x=range(1,10)", IntDistribution(1, 9)),
        ("x=range(1,10,3)", IntDistribution(1, 7, step=3)),
        ("x=range(10,1,-3)", IntDistribution(4, 10, step=3)),
        ("x=range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("x=a,b", CategoricalDistribution(("a", "b"))),
        ("x=choice(a,b)", CategoricalDistribution(("a", "b"))),
        ("x=1,'1',null,true,[1,2],{a:1}", CategoricalDistribution(("1", "'1'", "null", "True", "[1,2]", "{a:1}"))),
    ],
)
def test_hydras_words_are_these_distributions(text, distribution):
    assert searched(text).distribution == distribution


@settings(deadline=None)
@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(-7, 7).filter(bool))
def test_a_range_of_whole_numbers_has_pythons_values_and_no_others(start, stop, step):
    text = f"x=range({start},{stop},{step})"
    if not range(start, stop, step):
        with pytest.raises(UserError, match="has no value in it"):
            searched(text)
        return
    one = searched(text)
    assert list(one.points()) == sorted(range(start, stop, step))
    assert {value_of(text) for text in drawn_by(one, 5)} <= set(range(start, stop, step))


@settings(deadline=None)
@given(st.integers(-30, 30), st.integers(1, 12), st.sampled_from(["0.1", "0.25", "0.3", "1e-3"]))
def test_a_range_of_fractions_gives_the_numbers_that_hydra_counts_to_the_last_digit(tenths, count, step):
    text = f"x=range({tenths / 10},{tenths / 10 + count * float(step) * 0.999},{step})"
    exact = list(parsed(text).sweep_iterator())
    assert {value_of(one) for one in drawn_by(searched(text), 5)} <= set(exact)


@settings(deadline=None)
@given(PLAIN)
def test_a_plain_value_written_as_an_override_is_read_as_the_same_value(value):
    found = value_of(f"x={text_of(value)}")
    assert found == value
    assert type(found) is type(value)


@settings(deadline=None)
@given(st.lists(PLAIN, min_size=2, max_size=4))
def test_choices_reach_the_job_with_their_types(values):
    texts = [text_of(value) for value in values]
    one = searched(f"x={','.join(texts)}")
    wanted = [repr(value_of(f"x={text}")) for text in texts]
    assert {repr(value_of(override)) for override in drawn_by(one, 8)} <= set(wanted)
    for value in values:
        assert repr(value_of(one.override(one.drawn(value)))) == repr(value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x=tag(log,interval(0,1))", "a log scale needs numbers above 0"),
        ("x=tag(log,range(1,10,2))", "a log scale needs steps of 1"),
        ("x=range(3,3)", "has no value in it"),
        ("x=shuffle(a,b)", "shuffle"),
    ],
)
def test_what_has_no_meaning_in_a_search_is_told(text, reason):
    with pytest.raises(UserError, match=reason):
        searched(text)


GATES = {"gate=mha": {"heads", "dropout"}, "gate=mlp": {"hidden", "dropout"}}


def gates(*more, optional=()):
    parameters = [searched("gate=mha,mlp", group=True), *(searched(text) for text in more)]
    return Space(parameters, lambda chosen: GATES[chosen[0]], optional=optional)


def test_a_key_that_only_one_choice_has_is_drawn_only_there():
    space = gates("heads=1,2", "hidden=8,16", "dropout=interval(0,1)")
    study = in_memory()
    keys = {tuple(one.split("=")[0] for one in space.suggest(study.ask())) for _ in range(20)}
    assert keys == {("gate", "heads", "dropout"), ("gate", "hidden", "dropout")}


def test_a_grid_has_every_point_once_and_keys_only_where_they_are():
    points = list(gates("heads=1,2", "hidden=range(8,11)").grid())
    assert points == [
        {"gate": "mha", "heads": "1"},
        {"gate": "mha", "heads": "2"},
        *({"gate": "mlp", "hidden": value} for value in (8, 9, 10)),
    ]
    with pytest.raises(UserError, match=r"sampler=grid needs values that can be counted; dropout is numbers from 0"):
        list(gates("dropout=interval(0,1)").grid())


def test_a_key_that_no_choice_has_is_told_unless_it_may_be_missing():
    with pytest.raises(UserError, match="No config has the searched head"):
        gates("head=1,2")
    assert [one.key for one in gates("head=1,2", "heads=1,2", optional={"head"}).parameters] == ["gate", "heads"]
    assert [one.key for one in gates("+head=1,2").parameters] == ["gate", "head"]
    assert gates("+head=1,2").overrides({"head": "1"}) == ["+head=1"]


def test_known_points_are_taken_in_plain_values_and_refused_outside_of_the_space():
    space = gates("heads=1,2", "dropout=interval(0,0.5)")
    assert space.drawn({"gate": "mlp", "heads": 2, "dropout": 0.5}) == {"gate": "mlp", "heads": "2", "dropout": 0.5}
    for point, reason in [
        ({"heads": 3}, r"heads=3 is not in the search space, one of 1, 2"),
        ({"heads": True}, "heads=True is not"),
        ({"dropout": 0.6}, r"dropout=0.6 is not .* numbers from 0.0 to 0.5"),
        ({"depth": 1}, "depth is not searched; searched are gate, heads, dropout"),
    ]:
        with pytest.raises(UserError, match=reason):
            space.drawn(point)
