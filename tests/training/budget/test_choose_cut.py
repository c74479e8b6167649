"""Where a backbone is cut and how many copies are cached, by hand."""

from kindsight.models.networks.frozen_base import CutCandidate
from kindsight.training.budget.plan import choose_cut

# Bytes of a copy: 4 for the low feature, 2 for each of the map's numbers.
CUTS = [
    CutCandidate("stage2", 1, (1, 1, 998), 0.9),
    CutCandidate("stage3", 1, (1, 1, 498), 0.8),
    CutCandidate("stage4", 1, (1, 1, 248), 0.5),
    CutCandidate("stage5", 1, (1, 1, 98), 0.2),
]


def choose(images=(100, 20), max_copies=7, max_bytes=1e9, **more):
    found = choose_cut(CUTS, images, max_copies=max_copies, max_bytes=max_bytes, **more)
    return found.cut.stage, found.copies, found.reason


def test_without_a_budget_the_cut_is_after_the_last_stage_but_one_with_three_copies():
    assert choose() == ("stage4", 3, "")
    assert choose(max_copies=1) == ("stage4", 1, "")


def test_disk_space_bounds_the_copies():
    # 500 bytes a copy: 100 training and 20 validation images take 60,000, each further copy 50,000.
    assert choose(max_bytes=159_999) == ("stage4", 1, "as many as the disk allows")
    assert choose(max_bytes=160_000)[1] == 2
    assert choose(max_bytes=1_000)[1] == 0


def test_more_time_means_an_earlier_cut():
    # 820 passes of a fifth at 10 a second: 16.4 s; an epoch of 4 x 100 x 0.8 / 10: 32 s.
    assert choose(seconds=401, rate=10.0) == ("stage3", 7, "")
    # At stage4: 41 s for copies, 20 s an epoch.
    assert choose(seconds=400, rate=10.0) == ("stage4", 7, "")
    assert choose(seconds=282, rate=10.0)[0] == "stage4"
    assert choose(seconds=280, rate=10.0) == ("stage5", 7, "")
    # Steps of 2.5 passes in place of four: 20 s and 12.5 s an epoch.
    assert choose(seconds=257, rate=10.0, compute_dtype="bfloat16")[0] == "stage3"
    assert choose(seconds=192, rate=10.0, compute_dtype="bfloat16")[0] == "stage4"
    assert choose(seconds=190, rate=10.0, compute_dtype="bfloat16")[0] == "stage5"


def test_time_bounds_the_copies():
    # 25% of 80 s are 200 passes, or 250 of four fifths: 20 validation, 2 x 100 training images.
    assert choose(seconds=80, rate=10.0) == ("stage5", 1, "as many as the time allows")


def test_without_time_for_the_images_themselves_there_is_no_cut():
    # 120 images, four fifths of the network, 10 a second: 9.6 s, half of 19.2 s.
    more = {"max_copies": 7, "max_bytes": 1e9, "rate": 10.0}
    assert choose(seconds=19.3, rate=10.0)[:2] == ("stage5", 0)
    assert choose_cut(CUTS, (100, 20), seconds=19.1, **more) is None


def test_validation_images_are_cached_in_every_tta_flip():
    # 200 passes of four fifths are 250: two copies are 300, one is 200 and 20 in two flips.
    assert choose(seconds=80, rate=10.0, tta_flips=4) == ("stage5", 1, "as many as the time allows")
    assert choose(seconds=80, rate=10.0, images=(100, 25), tta_flips=2)[1] == 1
    assert choose(seconds=80, rate=10.0, images=(100, 26), tta_flips=2)[1] == 0
    # 500 bytes: (100 + 20) x 2 copies, and x 3.
    assert choose(max_bytes=120_000, tta_flips=4)[1] == 1
    assert choose(max_bytes=119_999, tta_flips=4)[1] == 0
    assert choose(max_bytes=180_000, tta_flips=4)[1] == 2
    # With time for the images alone, one flip is counted.
    assert choose(seconds=19.3, rate=10.0, tta_flips=4)[:2] == ("stage5", 0)
