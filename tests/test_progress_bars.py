"""`verbose` of evaluations is Keras': nothing unless asked for, a bar, or a line."""

import re

import pytest
import tensorflow as tf

import pineat_tf as pt
from pineat_tf.attacks import pgd

ATTACK = pgd(epsilon=0.1, step_size=0.05, num_steps=2)
EVALUATIONS = {
    "predict_logits": (lambda n, d, **v: pt.predict_logits(n, d, batch_size=3, **v), ["accuracy"]),
    "verify": (lambda n, d, **v: pt.verify(n, d, 0.01, batch_size=3, **v), ["verified"]),
    "robustness": (
        lambda n, d, **v: pt.robustness(n, d, {"pgd": ATTACK}, check=False, batch_size=3, **v),
        ["left by pgd at 0.1"],
    ),
    "evaluate": (
        lambda n, d, **v: pt.evaluate(n, members=d, non_members=d, attack=ATTACK, batch_size=3, **v),
        [f"{kind} accuracy on {who}" for kind in ("natural", "adversarial") for who in ("members", "non-members")],
    ),
}


@pytest.fixture(params=EVALUATIONS.values(), ids=EVALUATIONS)
def evaluation(request):
    return request.param


@pytest.mark.parametrize("streamed", [False, True], ids=["arrays", "stream"])
@pytest.mark.parametrize("verbose", ["auto", 1, 2])
def test_a_bar_ends_at_the_last_image(evaluation, network, images, labels, verbose, streamed, capsys):
    evaluate, figures = evaluation
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(3) if streamed else (images, labels)
    evaluate(network, data, verbose=verbose)
    shown = re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out)
    ends = re.findall(r"(\d+)/(\d+)[^\r\n]* - ([^:\r\n]*): [\d.e+-]+ *\n", shown)
    assert [figure for *_, figure in ends] == figures
    assert all(done == total for done, total, _ in ends)


def test_nothing_is_shown_unless_asked_for(evaluation, network, images, labels, capsys):
    evaluate, _ = evaluation
    evaluate(network, (images, labels))
    evaluate(network, (images, labels), verbose=0)
    assert capsys.readouterr() == ("", "")


def test_other_words_are_refused(evaluation, network, images, labels):
    evaluate, _ = evaluation
    with pytest.raises(ValueError, match="`verbose` must be one of"):
        evaluate(network, (images, labels), verbose=3)
