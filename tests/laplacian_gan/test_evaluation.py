"""From trained arms to rows and pictures: disjoint parts, the contents of each row, and figures drawn from them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lib.data.images import load_images
from lib.laplacian_gan import evaluation, figures, models, pictures, tables
from lib.laplacian_gan.arms import DCGAN, LEVELS, PYRAMID, Arm, control_arms, level_arms, mixture_arms
from lib.laplacian_gan.training import Settings, train_arms
from lib.metrics import features
from lib.metrics.comparison import paired_table
from lib.metrics.fid import frechet_distance
from lib.metrics.perceptual import load_lpips
from lib.press.parameters import resolve

COUNT = 100
SETTINGS = Settings(epochs=2, batch_size=40, width=4, ema=0.9, score_every=1, device="cpu")


@pytest.fixture(scope="module")
def data():
    return load_images("shapes-plain", "train", count=240), load_images("shapes-plain", "test", count=220)


@pytest.fixture(scope="module")
def protocol(data, tmp_path_factory):
    extractor = features.domain(*data, device="cpu", folder=tmp_path_factory.mktemp("extractors"), epochs=1)
    return evaluation.Protocol(*data, extractor, load_lpips("alex"), count=COUNT, pairs=6, queries=30)


@pytest.fixture(scope="module")
def trained(data, protocol, tmp_path_factory):
    return evaluation.compare_on(
        data[0], protocol, SETTINGS, LEVELS, seed=0, checkpoints=tmp_path_factory.mktemp("checkpoints")
    )


@pytest.fixture(scope="module")
def controls(data):
    arms = [*level_arms((4, 32)), *mixture_arms()]
    return train_arms(arms, data[0], SETTINGS, seed=0)


def rows_of(pixels):
    return {image.numpy().tobytes() for image in pixels}


def test_sources_and_references_are_disjoint(data, protocol):
    train, test = data
    assert protocol.count == COUNT == len(protocol.reference) == len(protocol.train_reference)
    assert rows_of(protocol.sources["training"]) <= rows_of(train.pixels)
    assert rows_of(protocol.sources["held-out"]) <= rows_of(test.pixels)
    assert not rows_of(protocol.sources["held-out"]) & rows_of(train.pixels)
    assert torch.equal(protocol.training[:COUNT], protocol.sources["training"])
    copies = evaluation.real_rows(protocol, seed=0).set_index("sources")
    assert (copies.fid > 1e-3).all()  # it would be 0 if both sets were the same
    chance = copies.copy_index.pop("none")
    assert 0 <= chance < 1 and copies.fid["none"] == copies.fid["held-out"]
    copies = copies.drop(index="none")
    assert (copies.copy_index == 1).all() and (copies.retrieval == 1).all()
    for words in ("FD-domain of 100 generated to 100 held-out images", "untrained trunk"):
        assert words in protocol.description


def test_rows_of_the_headline(trained, protocol):
    rows = evaluation.headline(trained, protocol, "plain shapes", seed=0)
    assert list(zip(rows.arm, rows.sources, strict=True)) == [
        ("DCGAN", "none"),
        ("pyramid GAN", "training"),
        ("pyramid GAN", "held-out"),
        ("null: zeros", "none"),
    ]
    conditioned = rows.sources != "none"
    for column in ("lpips_to_source", "lpips_same_pyramid", "retrieval", "share_z"):
        assert (rows[column].notna() == conditioned).all()
    shares = rows.loc[conditioned, ["share_z", "share_pyramid", "share_both"]].sum(axis=1)
    np.testing.assert_allclose(shares, 1)
    numbers = rows[["fid", "kid", "fid_train", "lpips_diversity", "copy_index"]].to_numpy(float)
    assert np.isfinite(numbers).all()
    assert list(rows.reported_fid.fillna(0)) == [112.07, 159.12, 159.12, 0]
    assert set(rows.n_fake) == {COUNT} and set(rows.extractor) == {protocol.extractor.name}


def test_the_comparison_repeated_on_another_set_says_how_it_was_measured_there(data, tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path))
    others = evaluation.load_others(["shapes-plain"], size=32, seed=1)
    assert [len(one) > 200 and one.pixels.shape[-1] == 32 for one in others["shapes-plain"]] == [True, True]
    small = {"shapes-plain": tuple(one.subset(slice(220)) for one in others["shapes-plain"])}
    how = {"extractor": "domain", "lpips_net": "alex", "count": COUNT, "pairs": 6, "seed": 1}
    brief = replace(SETTINGS, epochs=1, score_every=0)
    ((rows, described),) = evaluation.repeated(small, brief, LEVELS, how, seed=1, checkpoints=tmp_path / "kept")
    assert rows.arm.tolist() == ["DCGAN", "pyramid GAN", "pyramid GAN", "null: zeros"] and (rows.seed == 1).all()
    assert described.startswith(small["shapes-plain"][0].name) and "100 generated to 100 held-out images" in described
    assert len(list((tmp_path / "kept" / "shapes-plain").glob("*/key.json"))) == 3


def test_the_curve_ends_where_the_table_is(trained, protocol):
    curve = evaluation.histories(trained, seed=0)
    ends = curve[curve.epoch == curve.epoch.max()].set_index("arm").fid
    rows = evaluation.headline(trained, protocol, "x", seed=protocol.seed)
    for arm, sources in (("DCGAN", "none"), ("pyramid GAN", "held-out")):
        row = rows[(rows.arm == arm) & (rows.sources == sources)].iloc[0]
        assert ends[arm] == pytest.approx(row.fid, rel=1e-6)


@pytest.mark.parametrize(("images", "copied"), [(1, 0.0), (2, 1.0)])
def test_of_several_sources_the_one_copied_most_counts(protocol, images, copied):
    sources = protocol.sources["held-out"]
    found = evaluation._copies(protocol, 255 - sources.roll(1, 0), "held-out", images)  # negatives of the second source
    assert found["retrieval"] == 0 and (found["source_correlation"] < -0.99) == bool(copied)
    assert evaluation._copies(protocol, sources.roll(1, 0), "held-out", images)["retrieval"] == copied


def test_copies_are_looked_for_among_as_many_images_whatever_the_arm(protocol, monkeypatch):
    """Among more images, the nearest other one is closer, which lowers the index."""
    pools = []
    monkeypatch.setattr(evaluation.copying, "copy_index", lambda some, pool, *_: pools.append(len(pool)) or 0.0)
    for split in (*protocol.sources, "none"):
        evaluation._copies(protocol, protocol.sources["held-out"], split)
    assert pools == [COUNT] * 3 and len(protocol.training) > COUNT


def test_other_held_out_images_make_another_curve(data, protocol):
    other = load_images("shapes-plain", "test", count=220, seed=1)
    second = evaluation.Protocol(data[0], other, protocol.extractor, protocol.perceptual, count=COUNT, pairs=6)
    assert second.key != protocol.key


def test_too_few_images_are_refused(data, protocol):
    with pytest.raises(ValueError, match="at least 100 images of each set, not 20"):
        evaluation.distances(protocol, data[1].pixels[:20])
    few = evaluation.Protocol(*data, protocol.extractor, protocol.perceptual, count=10**6, pairs=4)
    assert few.count == 110  # half of the smaller split, as sources and reference share no image


# -- tables over seeds -----------------------------------------------------------------------


def test_over_seeds(trained, protocol):
    one = evaluation.headline(trained, protocol, "plain shapes", seed=0)
    two = one.assign(seed=1, fid=one.fid + 2)
    rows = pd.concat([one, two], ignore_index=True)
    table = tables.over_seeds(rows, by=["dataset"])
    assert list(table.arm) == list(one.arm) and set(table.seeds) == {2}
    np.testing.assert_allclose(table.fid, one.fid + 1)
    np.testing.assert_allclose(table.fid_sd, 2**0.5)
    assert list(table.reported_fid.fillna(0)) == [112.07, 159.12, 159.12, 0]
    named = tables.labelled(rows)
    assert "pyramid GAN, held-out pyramids" in set(named.arm)
    found = paired_table(named, baseline="DCGAN", by=["dataset"], value="fid", lower_is_better=True)
    assert len(found) == 4 and found.verdict[0] == "baseline"
    copies = tables.labelled(evaluation.real_rows(protocol, seed=0))
    assert list(copies.arm) == ["held-out images", "copy of training images", "copy of held-out images"]


# -- figures ---------------------------------------------------------------------------------


def test_pictures_and_their_figures(trained, controls, protocol, data, drawn):
    conditioned, plain = trained["pyramid GAN"], trained["DCGAN"]
    bands = pictures.pyramid_bands(data[0])
    np.testing.assert_allclose(bands["collapsed"], bands["images"], atol=1e-6)
    assert drawn(figures.pyramid(bands))
    shown = pictures.samples(conditioned, 12, protocol.sources, seed=0)
    assert set(shown) == {"training", "training sources", "held-out", "held-out sources"}
    np.testing.assert_array_equal(shown["held-out sources"], protocol.sources["held-out"][:12].numpy())
    assert drawn(figures.samples(shown)) == drawn(figures.samples(shown))
    same_z = pictures.samples(plain, 12, seed=0)["samples"]
    np.testing.assert_array_equal(same_z, plain.sample(12, seed=0).numpy())
    assert drawn(figures.samples({"samples": same_z}))
    pairs = pictures.nearest({"DCGAN": plain, "pyramid GAN": conditioned}, protocol, 4, seed=0)
    assert list(pairs) == ["DCGAN", "pyramid GAN, training pyramids", "pyramid GAN, held-out pyramids"]
    assert drawn(figures.nearest(pairs))
    by_level = {label: controls[label] for label in ("only 4 px", "only 32 px")}
    rows = evaluation.evaluate(by_level, protocol, seed=0)
    assert drawn(figures.levels(pictures.level_samples(by_level, protocol.sources["held-out"][:3], seed=0), rows))
    assert drawn(figures.level_values(rows))


def test_interpolations_end_where_they_should(trained, protocol, drawn):
    conditioned, plain = trained["pyramid GAN"], trained["DCGAN"]
    sources = protocol.sources["held-out"][:3]
    walks = pictures.interpolations(plain, conditioned, sources, steps=5, seed=0)
    z = pictures.latents(2, 100, 0)
    np.testing.assert_array_equal(walks["DCGAN, z to z'"][0], plain.sample_from(z[:1])[0].numpy())
    # On the diagonal of the swaps, both halves come from the same image.
    own = conditioned.sample_from(z[:1].expand(3, -1), sources).numpy().astype(int)
    diagonal = walks["swaps"][np.arange(3), np.arange(3)].astype(int)
    assert np.abs(own - diagonal).max() <= 1
    lengths = pictures._great_circle(z[0], z[1], 9).norm(dim=1)
    assert lengths.min() > 0.9 * z.norm(dim=1).min() and lengths.max() < 1.1 * z.norm(dim=1).max()
    assert drawn(figures.interpolation(walks))


def test_curves_spectra_and_controls_of_one_and_three_seeds(trained, controls, protocol, drawn):
    curves = evaluation.histories(trained, seed=0)
    spectra = evaluation.spectra(trained, protocol, seed=0)
    rows = evaluation.evaluate(trained, protocol, seed=0)
    real = spectra[spectra.arm == "real images"]
    assert real.frequency.max() == 0.5 and (spectra.power > 0).all()
    every = pd.concat([rows, evaluation.evaluate(controls, protocol, seed=0), evaluation.real_rows(protocol, seed=0)])
    mixed = tables.mixtures(every)
    assert sorted(mixed.images.unique()) == [0, 1, 2, 4] and not mixed.arm.str.startswith(("only", "copy")).any()
    cases = (curves, figures.training_curves), (spectra, figures.spectrum), (rows, figures.controls)
    for frame, draw in (*cases, (mixed, figures.mixtures)):
        assert drawn(draw(frame)) == drawn(draw(frame))
        three = pd.concat([frame.assign(seed=seed) for seed in range(3)], ignore_index=True)
        assert drawn(draw(three))


def test_every_run_follows_the_sign_for_seeds_of_its_own(data, protocol, tmp_path, drawn):
    design = SimpleNamespace(sign_count=80, sign_epochs=2, sign_seeds=2, levels=LEVELS)
    runs = [evaluation.signs(data[0], protocol, SETTINGS, design, seed=s, checkpoints=tmp_path)[0] for s in (0, 1)]
    assert [set(frame.training) for frame in runs] == [{0, 1}, {2, 3}]
    assert [set(frame.seed) for frame in runs] == [{0}, {1}]  # the run's seed, as in `Run.read`
    for _, line in runs[0].groupby(["arm", "training"]):
        assert list(line.images) == [0, 80, 160] and line.source_correlation.between(-1, 1).all()
    assert drawn(figures.signs(runs[0])) != drawn(figures.signs(runs[1]))


@pytest.mark.parametrize("profile", ["public", "trained", "gpu", "paper"])  # those that use a trained trunk
def test_lpips_at_32_px_is_that_of_vgg(profile):
    assert resolve("01_laplacian_gan", profile)["lpips_net"] == "vgg"


def test_the_title_of_signs_counts_copies_and_negatives():
    ends = {"free": (0.9, -0.8, -0.7), "seeing": (0.9, 0.2, 0.7)}  # 0.2 is about as close to its source as to others
    rows = [
        {"arm": arm, "seed": 0, "training": training, "images": images, "source_correlation": end * images,
         "chance_correlation": 0.1}
        for arm, found in ends.items() for training, end in enumerate(found) for images in (0.5, 1.0)
    ]  # fmt: skip
    titles = [cell.get_title() for cell in figures.signs(pd.DataFrame(rows)).axes]
    assert titles == [
        "free\ncopies 1 of 3 (6% to 79%), negatives 2",
        "seeing\ncopies 2 of 3 (34% to 100%), negatives 0",
    ]


@pytest.mark.parametrize("size, levels", [(32, LEVELS), (64, LEVELS), (64, ()), (32, (4, 32))])
def test_the_generator_is_drawn_with_every_level_that_joins(size, levels, drawn):
    figure = figures.generator(models.shapes(models.Generator(size, width=8, levels=levels)))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert [text for text in texts if text.startswith("Lap_pyr")] == [f"Lap_pyr\n3×{r}×{r}" for r in levels]
    assert texts[-1].endswith(f"3\n{size}×{size}") and drawn(figure)


def test_an_arm_without_source_draws_no_source():
    assert not Arm("plain").needs_source and PYRAMID.needs_source
    assert [arm.label for arm in control_arms() if not arm.needs_source] == [
        "DCGAN",
        "null: zeros",
        "null: band noise",
        "LAPGAN chain",
    ]


def test_a_folder_of_images_shaped_like_celeba(tmp_path):
    """178 x 218 JPEG files without classes, at 64 px: the domain classifier then predicts rotations."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / "faces" / split).mkdir(parents=True)
        for number in range(210):
            coarse = Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8))
            faces = coarse.resize((178, 218), Image.Resampling.BICUBIC)
            faces.save(tmp_path / "faces" / split / f"{number:06}.jpg", quality=70)
    train, test = (load_images(f"folder:{tmp_path / 'faces'}", split, size=64) for split in ("train", "test"))
    assert train.pixels.shape[1:] == (3, 64, 64) and len(train.classes) == 1
    settings = Settings(epochs=1, batch_size=64, width=2, device="cpu")
    extractor = features.domain(train, test, device="cpu", folder=tmp_path, epochs=1)
    assert "rotations" in extractor.name
    protocol = evaluation.Protocol(train, test, extractor, load_lpips("squeeze"), count=100, pairs=2)
    made = evaluation.compare_on(train, protocol, settings, LEVELS, seed=0, checkpoints=tmp_path / "checkpoints")
    rows = evaluation.headline(made, protocol, train.name, seed=0)
    assert made["pyramid GAN"].generator.mix is None  # at 64 px the finest band is not given
    assert np.isfinite(rows.fid).all() and len(rows) == 4


def test_a_second_extractor_measures_every_row_as_well(data, trained, protocol, tmp_path):
    second = features.domain(*data, device="cpu", folder=tmp_path, epochs=2)
    both = evaluation.Protocol(*data, protocol.extractor, load_lpips("alex"), second=second,
                                  count=COUNT, pairs=6, queries=30)  # fmt: skip
    table = pd.concat([evaluation.evaluate(trained, both, seed=0), evaluation.real_rows(both, seed=0)])
    alone = evaluation.evaluate(trained, protocol, seed=0)
    assert table.fid[: len(alone)].tolist() == alone.fid.tolist() and "fid_second" not in alone
    pixels = trained["DCGAN"].sample(COUNT, None, seed=0)
    order = torch.Generator().manual_seed(0)
    _, held_out = torch.randperm(len(data[0]), generator=order), torch.randperm(len(data[1]), generator=order)
    reference = data[1].pixels[held_out[COUNT : 2 * COUNT]]
    wanted = frechet_distance(second(pixels), second(reference))
    assert table.set_index("arm").fid_second["DCGAN"] == pytest.approx(wanted)
    once = table[(table.sources != "training") & (table.arm != "copy of held-out images")]
    rank = once.fid.rank().corr(once.fid_second.rank())
    title = f"Spearman's rank correlation of {len(once)} rows: {rank:.2f}"
    assert figures.extractors(table).axes[0].get_title() == title


class Painter:
    """An arm that returns its source, or paints z alone."""

    arm, generator, parameters = PYRAMID, SimpleNamespace(latent=48), {}

    def __init__(self, copies: bool):
        self.copies = copies

    def sample(self, count, sources, *, seed):
        return self.sample_from(pictures.latents(count, 48, seed), sources)

    def sample_from(self, z, sources, *, seed=0):
        coarse = z.view(-1, 3, 4, 4).clamp(-1, 1)
        return sources if self.copies else features.to_pixels(torch.nn.functional.interpolate(coarse, 32))


def test_measures_of_a_copier_and_of_one_that_heeds_z_alone(protocol):
    rows = evaluation.evaluate({"copier": Painter(True), "free": Painter(False)}, protocol, seed=0)
    copier, free = (rows[(rows.arm == arm) & (rows.sources == "held-out")].iloc[0] for arm in ("copier", "free"))
    assert (copier.share_pyramid, copier.share_z) == (1, 0) and (free.share_pyramid, free.share_z) == (0, 1)
    assert copier.lpips_to_source == copier.lpips_same_pyramid == 0 < min(free.lpips_to_source, free.lpips_same_pyramid)
    made = protocol.extractor(protocol.sources["held-out"])
    assert copier.fid_train == pytest.approx(frechet_distance(made, protocol.train_reference))
    assert copier.fid == pytest.approx(frechet_distance(made, protocol.reference))


def test_few_images_are_trained_on_for_as_many_steps(data, protocol, tmp_path):
    table, note = evaluation.on_few(data[0], protocol, SETTINGS, 80, seed=0, checkpoints=tmp_path)
    assert list(table.arm) == ["DCGAN", "DiffAugment", "pyramid augmentation"] and (table.n_fake == COUNT).all()
    assert note.startswith("80 training images, epochs: 6, width 4;")  # of 2 steps each, as 2 epochs of 6 steps
    few = train_arms([DCGAN], data[0].subset(slice(80)), replace(SETTINGS, epochs=6), seed=0)
    assert table.fid[0] == evaluation.evaluate(few, protocol, seed=0, copies=False).fid[0]


@pytest.mark.parametrize(("given", "message"), [
    ({"few_count": 39}, "few_count=39 images do not fill one batch of 40"),
    ({"sign_count": 1}, "sign_count=1 images do not fill one batch of 40"),
    ({"levels": [5]}, "pyramid levels"),
])  # fmt: skip
def test_a_design_that_cannot_be_trained_is_refused_at_once(given, message):
    usual = {"levels": [4, 32], "sign_count": 0, "few_count": 40}
    evaluation.check(SimpleNamespace(**usual), 32, 40)
    with pytest.raises(ValueError, match=message):
        evaluation.check(SimpleNamespace(**usual | given), 32, 40)
