"""From trained arms to rows and pictures: disjoint parts, what each row holds, and figures drawn from them."""

import io
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from lib import plots
from lib.data.images import load_images
from lib.laplacian_gan import evaluation, experiments, figures, models, pictures, tables
from lib.laplacian_gan.arms import LEVELS, PYRAMID, Arm, control_arms, level_arms
from lib.laplacian_gan.training import Settings, train_arms
from lib.metrics import features
from lib.metrics.comparison import paired_table
from lib.metrics.perceptual import load_lpips

COUNT = 100
SETTINGS = Settings(epochs=2, batch_size=40, width=4, ema=0.9, score_every=1, device="cpu")


@pytest.fixture(scope="module")
def data():
    return load_images("shapes-plain", "train", count=240), load_images("shapes-plain", "test", count=220)


@pytest.fixture(scope="module")
def yard(data, tmp_path_factory):
    extractor = features.domain(*data, device="cpu", folder=tmp_path_factory.mktemp("extractors"), epochs=1)
    return evaluation.yardstick(*data, extractor, load_lpips("alex"), count=COUNT, pairs=6, queries=30)


@pytest.fixture(scope="module")
def trained(data, yard, tmp_path_factory):
    return experiments.compare_on(
        data[0], yard, SETTINGS, LEVELS, seed=0, checkpoints=tmp_path_factory.mktemp("checkpoints")
    )


@pytest.fixture(scope="module")
def controls(data):
    arms = [control_arms()[6], *level_arms((4, 32))]
    return train_arms(arms, data[0], SETTINGS, seed=0)


def rows_of(pixels):
    return {image.numpy().tobytes() for image in pixels}


def test_sources_and_references_are_disjoint(data, yard):
    train, test = data
    assert yard.count == COUNT == yard.reference.count == yard.train_reference.count
    assert rows_of(yard.sources["training"]) <= rows_of(train.pixels)
    assert rows_of(yard.sources["held-out"]) <= rows_of(test.pixels)
    assert not rows_of(yard.sources["held-out"]) & rows_of(train.pixels)
    assert torch.equal(yard.training[:COUNT], yard.sources["training"])
    copies = evaluation.real_rows(yard, seed=0).set_index("sources")
    assert (copies.fid > 1e-3).all()  # the same images on both sides would have 0
    chance = copies.copy_index.pop("none")
    assert 0 <= chance < 1 and copies.fid["none"] == copies.fid["held-out"]
    copies = copies.drop(index="none")
    assert (copies.copy_index == 1).all() and (copies.retrieval == 1).all()
    assert "FD-domain of 100 generated to 100 held-out images" in yard.protocol and "untrained trunk" in yard.protocol


def test_rows_of_the_headline(trained, yard):
    rows = experiments.headline(trained, yard, "plain shapes", seed=0)
    assert list(zip(rows.arm, rows.sources, strict=True)) == [
        ("DCGAN", "none"),
        ("pyramid GAN", "training"),
        ("pyramid GAN", "held-out"),
        ("null: zeros", "none"),
    ]
    told = rows.sources != "none"
    for column in ("lpips_to_source", "lpips_same_pyramid", "retrieval", "share_z"):
        assert (rows[column].notna() == told).all()
    shares = rows.loc[told, ["share_z", "share_pyramid", "share_both"]].sum(axis=1)
    np.testing.assert_allclose(shares, 1)
    numbers = rows[["fid", "kid", "fid_train", "lpips_diversity", "copy_index"]].to_numpy(float)
    assert np.isfinite(numbers).all()
    assert list(rows.reported_fid.fillna(0)) == [112.07, 159.12, 159.12, 0]
    assert set(rows.n_fake) == {COUNT} and set(rows.extractor) == {yard.extractor.name}


def test_the_curve_ends_where_the_table_is(trained, yard):
    curve = evaluation.histories(trained, seed=0)
    ends = curve[curve.epoch == curve.epoch.max()].set_index("arm").fid
    rows = experiments.headline(trained, yard, "x", seed=yard.seed)
    for arm, sources in (("DCGAN", "none"), ("pyramid GAN", "held-out")):
        row = rows[(rows.arm == arm) & (rows.sources == sources)].iloc[0]
        assert ends[arm] == pytest.approx(row.fid, rel=1e-6)


def test_too_few_images_are_refused(data, yard):
    with pytest.raises(ValueError, match="at least 100 generated images, not 20"):
        evaluation.distances(yard, data[1].pixels[:20])
    few = evaluation.yardstick(*data, yard.extractor, yard.perceptual, count=10**6, pairs=4)
    assert few.count == 110  # half of the smaller split: sources and reference share no image


# -- tables over seeds -----------------------------------------------------------------------


def test_over_seeds(trained, yard):
    one = experiments.headline(trained, yard, "plain shapes", seed=0)
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
    copies = tables.labelled(evaluation.real_rows(yard, seed=0))
    assert list(copies.arm) == ["held-out images", "copy of training images", "copy of held-out images"]


# -- figures ---------------------------------------------------------------------------------


@pytest.fixture
def drawn():
    """figure -> PNG bytes, with warnings as errors and axes labelled where there are any."""

    def draw(figure):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plots.arrange(figure)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=40)
        plt.close(figure)
        return buffer.getvalue()

    plots.use_style()
    yield draw
    plt.close("all")


def test_pictures_and_their_figures(trained, controls, yard, data, drawn):
    told, plain = trained["pyramid GAN"], trained["DCGAN"]
    bands = pictures.pyramid_bands(data[0])
    np.testing.assert_allclose(bands["collapsed"], bands["images"], atol=1e-6)
    assert drawn(figures.pyramid(bands))
    shown = pictures.samples(told, 12, yard.sources, seed=0)
    assert set(shown) == {"training", "training sources", "held-out", "held-out sources"}
    np.testing.assert_array_equal(shown["held-out sources"], yard.sources["held-out"][:12].numpy())
    assert drawn(figures.samples(shown)) == drawn(figures.samples(shown))
    same_z = pictures.samples(plain, 12, seed=0)["samples"]
    np.testing.assert_array_equal(same_z, plain.sample(12, seed=0).numpy())
    assert drawn(figures.samples({"samples": same_z}))
    pairs = pictures.nearest({"DCGAN": plain, "pyramid GAN": told}, yard, 4, seed=0)
    assert list(pairs) == ["DCGAN", "pyramid GAN, training pyramids", "pyramid GAN, held-out pyramids"]
    assert drawn(figures.nearest(pairs))
    by_level = {label: controls[label] for label in ("only 4 px", "only 32 px")}
    rows = evaluation.evaluate(by_level, yard, seed=0)
    assert drawn(figures.levels(pictures.level_samples(by_level, yard.sources["held-out"][:3], seed=0), rows))
    assert drawn(figures.level_values(rows))


def test_what_is_told_with_levels_taken_out(trained, yard, drawn):
    told, source = trained["pyramid GAN"], yard.sources["held-out"][0]
    whole = pictures.told_less(told, source, (), seed=3, count=4)
    assert np.abs(whole["told"].astype(int) - source.numpy().astype(int)).max() <= 1  # the pyramid adds up
    own = told.sample(4, source.expand(4, -1, -1, -1), seed=3).numpy().astype(int)
    assert np.abs(whole["samples"].astype(int) - own).max() <= 2
    nothing = pictures.told_less(told, source, (4, 8, 16, 32), seed=3, count=4)
    coarse = pictures.told_less(told, source, (16, 32), seed=3)["told"].astype(float)
    assert np.ptp(nothing["told"]) < np.ptp(source.numpy())
    assert np.abs(np.diff(coarse)).mean() < np.abs(np.diff(source.numpy().astype(float))).mean()
    assert drawn(figures.told_less(whole)) != drawn(figures.told_less(nothing))


def test_interpolations_end_where_they_should(trained, yard, drawn):
    told, plain = trained["pyramid GAN"], trained["DCGAN"]
    sources = yard.sources["held-out"][:3]
    walks = pictures.interpolations(plain, told, sources, steps=5, seed=0)
    z = pictures.latents(2, 100, 0)
    np.testing.assert_array_equal(walks["DCGAN, z to z'"][0], plain.sample_from(z[:1])[0].numpy())
    # The diagonal of the swaps is the image's own pyramid.
    own = told.sample_from(z[:1].expand(3, -1), sources).numpy().astype(int)
    diagonal = walks["swaps"][np.arange(3), np.arange(3)].astype(int)
    assert np.abs(own - diagonal).max() <= 1
    lengths = pictures._great_circle(z[0], z[1], 9).norm(dim=1)
    assert lengths.min() > 0.9 * z.norm(dim=1).min() and lengths.max() < 1.1 * z.norm(dim=1).max()
    assert drawn(figures.interpolation(walks))


def test_curves_spectra_and_controls_of_one_and_three_seeds(trained, yard, drawn):
    curves = evaluation.histories(trained, seed=0)
    spectra = evaluation.spectra(trained, yard, seed=0)
    rows = evaluation.evaluate(trained, yard, seed=0)
    real = spectra[spectra.arm == "real images"]
    assert real.frequency.max() == 0.5 and (spectra.power > 0).all()
    for frame, draw in ((curves, figures.training_curves), (spectra, figures.spectrum), (rows, figures.controls)):
        assert drawn(draw(frame)) == drawn(draw(frame))
        three = pd.concat([frame.assign(seed=seed) for seed in range(3)], ignore_index=True)
        assert drawn(draw(three))


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
    """178 x 218 JPEG files without classes, at 64 px: the features are then those of telling rotations."""
    random = np.random.default_rng(0)
    (tmp_path / "faces").mkdir()
    for number in range(1100):
        coarse = Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8))
        coarse.resize((178, 218), Image.Resampling.BICUBIC).save(tmp_path / "faces" / f"{number:06}.jpg", quality=70)
    train, test = (load_images(f"folder:{tmp_path / 'faces'}", split, size=64) for split in ("train", "test"))
    assert train.pixels.shape[1:] == (3, 64, 64) and len(train.classes) == 1
    settings = Settings(epochs=1, batch_size=64, width=2, device="cpu")
    extractor = features.domain(train, test, device="cpu", folder=tmp_path, epochs=1)
    assert "rotations" in extractor.name
    yard = evaluation.yardstick(train, test, extractor, load_lpips("squeeze"), count=100, pairs=2)
    made = experiments.compare_on(train, yard, settings, LEVELS, seed=0, checkpoints=tmp_path / "checkpoints")
    rows = experiments.headline(made, yard, train.name, seed=0)
    assert made["pyramid GAN"].generator.mix is None  # at 64 px the finest band is not given
    assert np.isfinite(rows.fid).all() and len(rows) == 4
