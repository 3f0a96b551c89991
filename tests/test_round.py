"""The round as data: which steps in which order, and what each is given."""

import pytest
import tensorflow as tf

from pineat_tf.round import play, schedule
from pineat_tf.tracing import Traced
from pineat_tf.types import Ratio


@pytest.mark.parametrize(
    "ratio, options, steps",
    [
        ((1, 0), {}, "g0 a0"),
        ((0, 2), {}, "c0 c1"),
        ((2, 1), {}, "g0 g1 a0 a1 c0"),
        ((2, 1), {"generation": "update"}, "g0 a0 g1 a1 c0"),
        ((2, 2), {"order": "companions"}, "g0 g1 c0 c1 a0 a1"),
    ],
)
def test_the_steps_of_a_round(ratio, options, steps):
    assert " ".join(f"{action[0]}{index}" for action, index in schedule(Ratio(*ratio), **options)) == steps


def test_companions_cannot_come_before_what_they_are_made_from():
    with pytest.raises(ValueError, match="cannot wait.*generation='round'"):
        schedule(Ratio(1, 1), order="companions", generation="update")


@pytest.mark.parametrize("options", [{}, {"generation": "update"}, {"order": "companions"}], ids=str)
def test_each_step_is_given_what_is_there_by_then(options):
    weights = [10]  # moved by 1 an update

    def update(kind, example):
        weights[0] += 1
        return f"{kind} {example} at {weights[0] - 1}"

    logits = play(
        schedule(Ratio(2, 2), **options),
        generate=lambda index: f"x{index}@{weights[0]}",
        companions=lambda adversarial: [f"mirror {number} of {'+'.join(adversarial)}" for number in range(2)],
        update=update,
    )
    first, second = ("x0@10", "x1@11") if options == {"generation": "update"} else ("x0@10", "x1@10")
    at = (12, 13, 10, 11) if options == {"order": "companions"} else (10, 11, 12, 13)
    assert logits == [
        f"adversarial {first} at {at[0]}",
        f"adversarial {second} at {at[1]}",
        f"companion mirror 0 of {first}+{second} at {at[2]}",
        f"companion mirror 1 of {first}+{second} at {at[3]}",
    ]


@pytest.mark.parametrize("made", [(), (1,), (1, 2, 3)])
def test_companions_are_as_many_as_the_ratio_says(made):
    with pytest.raises(ValueError, match=f"as many as the ratio says, 2. Received: {len(made)}"):
        play(schedule(Ratio(0, 2)), generate=None, companions=lambda adversarial: made, update=lambda *_: None)


def test_without_companions_none_are_asked_for():
    play(schedule(Ratio(1, 0)), generate=lambda index: index, companions=None, update=lambda *_: None)


def test_a_graph_is_traced_and_optimised_once_however_often_it_is_called():
    traced, traces = Traced(), []

    def double(x):
        traces.append(x)
        return 2.0 * x

    around = tf.function(lambda x: traced("double", double, traced("double", double, x)))
    assert float(around(tf.constant(1.0))) == 4.0 and len(traces) == 1
    library = around.get_concrete_function(tf.TensorSpec(())).graph.as_graph_def().library.function
    assert [function.attr["_noinline"].b for function in library] == [True]  # else each call becomes a copy of its own
