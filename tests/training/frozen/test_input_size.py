"""The input size of a frozen backbone, chosen where images are many and small."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kindsight.dataset import ImageDataset
from kindsight.models.backbones.backbone import FeatureBlock, FeatureLayout
from kindsight.training.frozen import input_size
from kindsight.training.frozen.feature_rows import FeatureRows
from kindsight.training.frozen.features import Features
from kindsight.training.frozen.input_size import MIN_IMAGES, SAMPLE, choose_input_size
from kindsight.training.frozen.settings import FrozenTrainer, SizeChoice

WIDTH = 12
LAYOUT = FeatureLayout((FeatureBlock("top_mean", 0, WIDTH),))


def dataset_of(count=MIN_IMAGES, side=8, classes="abc", **columns):
    """Many images of one size; label by turns."""
    images = [np.full((side, side, 3), n % 251, np.uint8) for n in range(count)]
    dataset = ImageDataset.from_arrays(images, [classes[n % len(classes)] for n in range(count)])
    return dataset.with_columns(**columns) if columns else dataset


class Computed:
    """Stands for the backbone: features of which a share, by size, tells the class."""

    def __init__(self, noise):
        self.noise, self.sizes, self.datasets = noise, [], []

    def features(self, trainer, dataset, files, progress=None, keras=None):
        size = trainer.spec().height
        self.sizes.append(size)
        self.datasets.append(dataset)
        # The same for an image whatever the sample and the order.
        rows = [int(path.split("-")[1].split("/")[0]) for path in dataset.path]
        random = np.random.default_rng(7).normal(size=(20_000, WIDTH))[rows]
        hot = np.eye(WIDTH)[dataset.targets]
        vectors = (hot + self.noise[size] * random).astype(np.float32)
        digests = [f"{row:032x}" for row in rows]
        progress("features", len(dataset), len(dataset))
        return Features(
            dataset.with_columns(digest=digests),
            FeatureRows.of(vectors),
            (),
            (),
            len(dataset),
            0,
            None,
        )


@pytest.fixture
def computed(monkeypatch):
    """Return a function that sets the noise of the features at each size."""

    def use(noise):
        fake = Computed(noise)
        files = SimpleNamespace(layout=LAYOUT, members=())
        monkeypatch.setattr(input_size, "compute_all_features", fake.features)
        monkeypatch.setattr(FrozenTrainer, "backbone", lambda *_, **__: files)
        return fake

    return use


def test_the_smallest_size_that_is_not_worse(computed):
    fake = computed({128: 0.5, 160: 0.5, 224: 0.5})
    seen = []
    chosen = choose_input_size(FrozenTrainer(), dataset_of(), lambda *step: seen.append(step))
    assert chosen.size == 128 and chosen.spec().size == (128, 128)
    choice = chosen.size_choice
    assert choice.tried == (128, 224) and fake.sizes == [224, 128]
    assert choice.images == SAMPLE
    assert choice.describe() == "128 px, chosen from 128 and 224 on 1,500 images"
    assert {stage for stage, *_ in seen} == {"input size"}
    done = [step[1] / step[2] for step in seen if step[2]]
    assert done == sorted(done)


def test_the_next_size_where_the_smallest_is_worse(computed):
    computed({128: 0.7, 160: 0.5, 224: 0.5})
    choice = choose_input_size(FrozenTrainer(), dataset_of()).size_choice
    assert (choice.size, choice.tried) == (160, (128, 160, 224))
    assert choice.log_losses[0] > choice.log_losses[1] == choice.log_losses[2]
    assert choice.accuracies[0] < choice.accuracies[1]


def test_a_smaller_size_that_is_better_is_taken_too(computed):
    computed({128: 0.4, 224: 0.6})
    assert choose_input_size(FrozenTrainer(), dataset_of()).size == 128


def test_the_backbones_own_size_stays_unset(computed):
    computed({128: 0.9, 160: 0.7, 224: 0.4})
    chosen = choose_input_size(FrozenTrainer(), dataset_of())
    assert chosen.size is None and chosen.spec().size == (224, 224)
    assert chosen.describe_input() == "224 px, chosen from 128, 160 and 224 on 1,500 images"


@pytest.mark.parametrize(
    ("options", "dataset"),
    [
        ({"size": 64}, {}),
        ({"first_size": (64, 64)}, {}),
        ({}, {"side": 200}),
        ({}, {"count": MIN_IMAGES - 1}),
        ({}, {"classes": "a"}),
    ],
)
def test_nothing_is_chosen(computed, options, dataset):
    computed({})
    trainer = FrozenTrainer(**options)
    chosen = choose_input_size(trainer, dataset_of(**{"side": 8, **dataset}))
    assert chosen is trainer and chosen.describe_input() == ""


def test_sizes_below_that_of_the_images_are_not_tried(computed):
    fake = computed(dict.fromkeys((128, 160, 224), 0.5))
    assert choose_input_size(FrozenTrainer(), dataset_of(side=150)).size == 160
    assert fake.sizes == [224, 160]


def test_a_crop_has_the_shorter_side_and_padding_the_longer_one(computed):
    images = [np.full((40, 150, 3), n % 251, np.uint8) for n in range(MIN_IMAGES)]
    dataset = ImageDataset.from_arrays(images, ["ab"[n % 2] for n in range(MIN_IMAGES)])
    computed(dict.fromkeys((128, 160, 224), 0.5))
    assert choose_input_size(FrozenTrainer(), dataset).size == 128
    assert choose_input_size(FrozenTrainer(resize="pad"), dataset).size == 160


def test_neither_seed_nor_order_nor_head_changes_the_choice(computed):
    fake = computed({128: 0.5, 224: 0.5})
    dataset = dataset_of()
    plain = choose_input_size(FrozenTrainer(), dataset)
    turned = dataset[np.arange(len(dataset))[::-1]]
    for trainer, images in [
        (FrozenTrainer(seed=3), dataset), (FrozenTrainer(head="rbf", tta_flips=2), dataset),
        (FrozenTrainer(), turned),
    ]:  # fmt: skip
        other = choose_input_size(trainer, images)
        assert other.size_choice == plain.size_choice
        assert other == replace(trainer, size=128, size_choice=plain.size_choice)
    assert len({frozenset(each.path) for each in fake.datasets}) == 1


def test_held_out_images_have_no_part_in_it(computed):
    fake = computed(dict.fromkeys((128, 224), 0.5))
    split = [("train", "validation", "test", None)[n % 4] for n in range(4 * MIN_IMAGES)]
    choose_input_size(FrozenTrainer(), dataset_of(4 * MIN_IMAGES, split=split))
    assert {*fake.datasets[0].split} == {"train", None}


def test_rare_classes_are_in_the_sample_or_left_out(computed):
    fake = computed(dict.fromkeys((128, 224), 0.5))
    labels = ["ab"[n % 2] for n in range(MIN_IMAGES)]
    labels[10:16], labels[20:22], labels[30] = ["c"] * 6, ["d"] * 2, None
    choose_input_size(FrozenTrainer(), dataset_of(label=labels))
    counts = fake.datasets[0].counts()
    assert counts["c"] >= 5 and not counts["d"] and len(fake.datasets[0]) == SAMPLE


def test_the_choice_is_no_setting_of_the_result():
    choice = SizeChoice(128, (96, 128), (0.7, 0.8), (0.9, 0.6), 1500)
    trainer = FrozenTrainer(size=128, size_choice=choice)
    assert trainer.to_dict() == FrozenTrainer(size=128).to_dict()
    assert choice.to_dict() == {
        "size": 128, "tried": [96, 128], "accuracies": [0.7, 0.8], "log_losses": [0.9, 0.6],
        "images": 1500,
    }  # fmt: skip
    # Wider features, at another size, were not chosen by it.
    assert replace(trainer, size=300).describe_input() == ""
