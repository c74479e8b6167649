"""Where to cut and how many views: worked out by hand."""

from kindsight.models.networks.frozen_base import CutCandidate
from kindsight.training.fine_tuning.cut import choose_cut

# Bytes of a view: 4 for the low feature, 2 for each of the map's numbers.
PLACES = [
    CutCandidate("stage2", 1, (1, 1, 998), 0.9),
    CutCandidate("stage3", 1, (1, 1, 498), 0.8),
    CutCandidate("stage4", 1, (1, 1, 248), 0.5),
    CutCandidate("stage5", 1, (1, 1, 98), 0.2),
]


def choose(images=(100, 20), most_views=7, room=1e9, **more):
    found = choose_cut(PLACES, images, most_views=most_views, room=room, **more)
    return found.place.stage, found.views, found.why


def test_without_a_budget_it_is_the_last_stage_but_one_with_three_views():
    assert choose() == ("stage4", 3, "")
    assert choose(most_views=1) == ("stage4", 1, "")


def test_the_disk_bounds_the_views():
    # 500 bytes a view: 100 images and 20 to judge by take 60,000, each further view 50,000.
    assert choose(room=159_999) == ("stage4", 1, "as many as the disk allows")
    assert choose(room=160_000)[1] == 2
    assert choose(room=1_000)[1] == 0


def test_with_time_more_of_the_network_learns():
    # 820 passes of a fifth at 10 a second: 16.4 s; an epoch of 4 x 100 x 0.8 / 10: 32 s.
    assert choose(seconds=401, rate=10.0) == ("stage3", 7, "")
    # At stage4: 41 s of views, 20 s an epoch.
    assert choose(seconds=400, rate=10.0) == ("stage4", 7, "")
    assert choose(seconds=282, rate=10.0)[0] == "stage4"
    assert choose(seconds=280, rate=10.0) == ("stage5", 7, "")
    # Steps of 2.5 passes in place of four: 20 s and 12.5 s an epoch.
    assert choose(seconds=257, rate=10.0, compute_dtype="bfloat16")[0] == "stage3"
    assert choose(seconds=192, rate=10.0, compute_dtype="bfloat16")[0] == "stage4"
    assert choose(seconds=190, rate=10.0, compute_dtype="bfloat16")[0] == "stage5"


def test_the_time_bounds_the_views():
    # 25% of 80 s are 200 passes, or 250 of four fifths: 20 to judge by, and twice the images.
    assert choose(seconds=80, rate=10.0) == ("stage5", 1, "as many as the time allows")


def test_without_time_for_the_images_themselves_there_is_no_cut():
    # 120 images, four fifths of the network, 10 a second: 9.6 s, half of 19.2 s.
    more = {"most_views": 7, "room": 1e9, "rate": 10.0}
    assert choose(seconds=19.3, rate=10.0)[:2] == ("stage5", 0)
    assert choose_cut(PLACES, (100, 20), seconds=19.1, **more) is None


def test_what_is_judged_by_takes_as_many_looks_as_there_are_views():
    # 200 passes of four fifths are 250: two views are 300, one is 200 and 20 looked at twice.
    assert choose(seconds=80, rate=10.0, looks=4) == ("stage5", 1, "as many as the time allows")
    assert choose(seconds=80, rate=10.0, images=(100, 25), looks=2)[1] == 1
    assert choose(seconds=80, rate=10.0, images=(100, 26), looks=2)[1] == 0
    # 500 bytes: (100 + 20) x 2 views, and x 3.
    assert choose(room=120_000, looks=4)[1] == 1
    assert choose(room=119_999, looks=4)[1] == 0
    assert choose(room=180_000, looks=4)[1] == 2
    # Where there is only time for the images as they are, one look is what is reckoned with.
    assert choose(seconds=19.3, rate=10.0, looks=4)[:2] == ("stage5", 0)
