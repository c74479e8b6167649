"""How a fine-tuned network answers: over flipped views or not, alone or beside the frozen head."""

import numpy as np
import pytest

from kindsight.training.fine_tuning import train as fine_tuning
from kindsight.training.fine_tuning.tta import choose_answer, logits_of_views

TARGETS = np.array([0, 1] * 20)
RIGHT = np.where(np.eye(2)[TARGETS] > 0, 2.0, -2.0).astype(np.float32)


def wrong(*images):
    logits = RIGHT.copy()
    logits[list(images)] *= -1
    return logits


def answer(views, before, shares=(1.0, 0.5), wide=False):
    return choose_answer(np.stack(views), before, TARGETS, shares, wide=wide, clearly=0.99)


def choose(views, before, shares=(1.0, 0.5), wide=False):
    found = answer(views, before, shares, wide)
    return found.views, found.share


@pytest.mark.parametrize("wide", [False, True])
def test_together_only_where_that_is_clearly_surer(wide):
    first, last = wrong(*range(8)), wrong(*range(32, 40))  # each is wrong of its own
    assert choose([first], last, (1.0, 0.5), wide) == (1, 0.5)
    assert choose([RIGHT], RIGHT, (1.0, 0.5), wide) == (1, 1.0)
    assert choose([RIGHT], RIGHT, (0.5, 1.0), wide) == (1, 0.5)
    assert choose([RIGHT], -RIGHT, (0.5, 1.0), wide) == (1, 1.0)


def test_over_views_alone_where_that_is_clearly_surer():
    # Wrong in other images each; their mean is unsure of these and right in the rest.
    views = [wrong(*range(8)), wrong(*range(8, 16)), wrong(*range(16, 24))]
    found = answer(views, wrong(*range(4)))
    assert (found.views, found.share) == (3, 1.0)
    np.testing.assert_allclose(found.logits, np.mean(views, 0), rtol=1e-6)
    # Alike or worse, or where the two together are as sure: one view.
    assert choose([RIGHT, RIGHT], RIGHT) == (1, 1.0)
    assert choose([RIGHT, -RIGHT], RIGHT) == (1, 1.0)
    assert choose([wrong(0, 1), wrong(1, 2)], RIGHT) == (1, 0.5)


def test_beside_wider_features_over_all_views_unless_one_is_clearly_surer():
    mean = np.mean([RIGHT, wrong(3)], 0)
    found = answer([RIGHT, RIGHT], RIGHT, (0.5, 1.0), wide=True)
    assert (found.views, found.share) == (2, 0.5)
    found = answer([wrong(3), RIGHT], -RIGHT, (0.5, 1.0), wide=True)
    assert (found.views, found.share) == (2, 1.0)
    np.testing.assert_allclose(found.logits, mean)
    assert choose([RIGHT, -RIGHT], RIGHT, (0.5, 1.0), wide=True) == (1, 0.5)


class Sum:
    """A network that answers with two corners of an image."""

    def logits(self, images):
        return np.stack([images[:, 0, 0, 0], images[:, 0, -1, 0]], 1).astype(np.float32)


def test_each_view_is_asked_for_flipped():
    pixels = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    told = Sum(), pixels, np.array([[1, 1, 1, 1]]), (0, 1, 2, 3)
    # The second image's corners are 12 and 15 above, 18 and 21 below.
    expected = [[[12, 15]], [[15, 12]], [[18, 21]], [[21, 18]]]
    heard = []
    found = logits_of_views(*told, flipped=False, tell=lambda: heard.append(1))
    np.testing.assert_array_equal(found, expected)
    assert len(heard) == 4
    flipped = Sum(), pixels, np.array([[1, 0]]), (0, 2)
    found = logits_of_views(*flipped, flipped=True, tell=lambda: None)
    np.testing.assert_array_equal(found, [[[12, 15]], [[0, 3]]])


@pytest.mark.parametrize(
    ("views", "share", "said"),
    [
        (1, 1.0, ""),
        (1, 0.5, "it answers together with the frozen head"),
        (4, 1.0, "it answers by the mean of 4 looks, at the image as it is and flipped"),
        (2, 0.5, "2 looks, at the image as it is and flipped, together with the frozen head"),
    ],
)
def test_how_it_answers_is_said(views, share, said):
    assert fine_tuning._answers_in_words(views, share).endswith(said)
    assert bool(fine_tuning._answers_in_words(views, share)) == bool(said)
