import itertools
import unicodedata
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lib.emergency import figures
from lib.emergency.classes import EMERGENCY, NAMES
from lib.emergency.cnn import experiments
from lib.emergency.cnn.experiments import Evaluation
from lib.emergency.cnn.network import Settings, Trained, Variant, build_cnn, cross_validate
from lib.emergency.data import sounds
from lib.emergency.features import Mels
from lib.emergency.synthesis.soundscapes import draw_soundscapes
from lib.metrics.classification import fit_temperature

VARIANT = Variant("tiny", channels=(4, 8))
SETTINGS = Settings(epochs=1, batch_size=8)


def clips(count=40, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mel = torch.randn(count, 1, 32, 40, generator=generator).half()
    names = tuple("abcdefgh"[:classes])
    return Mels(mel, torch.arange(count) % classes, names, torch.arange(count) // 4 % 2, "noise", f"noise-{seed}")


def validated(some, right):
    """Return a trained variant that is right on the clips where `right`, and predicts the next class on all others."""
    wrong = (some.labels + 1) % len(some.classes)
    logits = 5.0 * nn.functional.one_hot(torch.where(right, some.labels, wrong), len(some.classes)).float()
    rows, folds = [], some.folds.unique().tolist()
    for fold in folds:
        out = some.folds == fold
        share = right[out].float().mean().item()
        rows += [{"epoch": epoch, "fold": fold, "accuracy": 100 * share * epoch / 2, "clips": int(out.sum())}
                 for epoch in (0, 1, 2)]  # fmt: skip
    history = pd.DataFrame(rows)
    history.loc[history.epoch == 1, "accuracy"] = np.nan  # not scored
    return Trained(VARIANT, (None,) * len(folds), history, logits)


def test_curves_weigh_folds_by_their_size():
    some = clips(40)
    some = replace(some, folds=(torch.arange(40) >= 10).long())  # 10 and 30 clips
    right = torch.arange(40) < 10  # all of the first fold, none of the second
    table = experiments.curves({"tiny": validated(some, right)}, seed=3)
    assert table.columns.tolist() == ["variant", "seed", "epoch", "accuracy"]
    assert table.epoch.tolist() == [0, 2] and table.accuracy.iloc[-1] == pytest.approx(25)


def test_variant_table_counts_clips_out_of_fold():
    some = clips(40)
    found = {"good": validated(some, torch.arange(40) >= 4), "bad": validated(some, torch.arange(40) >= 20)}
    table = experiments.variant_table(found, some, seed=1)
    assert table.accuracy.tolist() == [90, 50] and (table.clips == 40).all() and (table.folds == 2).all()
    assert ((table.low < table.accuracy) & (table.accuracy < table.high)).all()
    assert (table.high - table.low > table.high_666 - table.low_666).all(), "666 clips tell more than 40"
    assert experiments.best(table) == "good"
    assert experiments.best(table.assign(accuracy=50, mega_macs=[2.0, 1.0])) == "bad", "the cheaper of equals"


def judge(test, tmp_path):
    some = clips(40)
    return some, experiments.judge(
        validated(some, torch.arange(40) >= 4), some, test, SETTINGS, seed=0, checkpoint=tmp_path / "chosen"
    )


def test_a_test_set_is_judged_by_one_network_with_the_temperature_out_of_fold(tmp_path):
    test = clips(24, seed=1)
    some, evaluation = judge(test, tmp_path)
    assert evaluation.clips is test and evaluation.logits.shape == (24, 4) and evaluation.explained.all()
    # Fitted with the settings of the evaluated network, not with the shorter training used for selection.
    out_of_fold = cross_validate(validated(some, torch.arange(40) >= 4).variant, some, SETTINGS, seed=0).logits
    expected = fit_temperature(out_of_fold, some.labels)
    assert evaluation.temperature.unique().tolist() == pytest.approx([expected])
    assert torch.allclose(evaluation.calibrated * expected, evaluation.logits)
    before, after = (cross_entropy(logits, some.labels) for logits in (out_of_fold, out_of_fold / expected))
    assert after <= before + 1e-6


def test_without_a_test_set_each_fold_is_judged_by_a_network_that_has_not_seen_it(tmp_path):
    some, evaluation = judge(None, tmp_path)
    assert evaluation.clips is some and evaluation.logits.shape == (40, 4)
    assert evaluation.explained.tolist() == (some.folds == 0).tolist()
    for fold in (0, 1):
        out = some.folds == fold
        expected = fit_temperature(evaluation.logits[~out], some.labels[~out])
        assert evaluation.temperature[out].unique().tolist() == pytest.approx([expected]), "fitted on the other fold"


def test_tables_and_pictures_of_what_was_judged(tmp_path):
    _, evaluation = judge(clips(24, seed=1), tmp_path)
    table = experiments.test_table(evaluation, (0, 1), seed=2)
    names = ["as trained", "calibrated", "always alarming", "never alarming"]
    assert table.outputs.tolist() == names and table.temperature.iloc[0] == 1
    assert table.balanced_accuracy[2:].tolist() == [50, 50] and table.binary_accuracy[2:].sum() == 100
    assert table.accuracy.nunique() == 1, "a temperature does not change what is recognised"
    arrays = experiments.matrices(evaluation, (0, 1))
    assert arrays["counts"].sum() == 24 == arrays["binary"].sum()
    assert np.trace(arrays["counts"]) / 24 * 100 == pytest.approx(table.accuracy.iloc[0])
    assert np.trace(arrays["binary"]) / 24 * 100 == pytest.approx(table.binary_accuracy.iloc[0])
    assert len(figures.confusion(arrays).axes) >= 3
    assert figures.confusion(experiments.matrices(evaluation, ())), "no class alarms"


@pytest.mark.parametrize("classes", [3, 50])
def test_the_names_of_classes_are_legible_in_print(classes):
    curve = np.column_stack([np.linspace(0, 1, 5)] * 2 + [np.ones(5)])
    arrays = {"counts": np.eye(classes, dtype=int), "names": np.array(["washing machine"] * classes)}
    arrays |= {"binary": np.eye(2, dtype=int), "reliability_trained": curve, "reliability_calibrated": curve}
    figure = figures.confusion(arrays)
    figure.draw_without_rendering()
    labels = figure.axes[0].get_yticklabels()
    assert len(labels) == classes and min(label.get_fontsize() for label in labels) >= 5
    places = [label.get_window_extent() for label in labels]
    assert all(a.y0 >= b.y1 - 1 for a, b in itertools.pairwise(places)), "no two overlap"


# -- Relevance, on soundscapes -------------------------------------------------------------------


@pytest.fixture(scope="module")
def heard():
    truth = draw_soundscapes(60, split="test", seconds=1.0, stems=True)
    mels = sounds.mels(sounds.of_soundscapes(truth, "test"))
    torch.manual_seed(0)
    model = build_cnn(VARIANT, len(mels.classes)).eval()
    logits = torch.randn(60, len(mels.classes))
    return Evaluation(mels, model, torch.ones(60, dtype=torch.bool), logits, torch.ones(60)), truth


def test_the_clip_shown_is_the_surest_of_its_class_with_speech_and_event(heard):
    evaluation, truth = heard
    names = [evaluation.clips.classes[number] for number in EMERGENCY]
    shown = experiments.shown_clips(evaluation, names, truth)
    assert shown
    for clip in shown:
        number = truth.numbers[clip]
        rivals = [i for i, one in enumerate(truth.clips)
                  if one.number == number and one.of("speech") and one.of("event")]  # fmt: skip
        probability = evaluation.logits.softmax(1)[:, number]
        assert clip in rivals and probability[clip] == max(probability[i] for i in rivals)


def test_classes_to_show_are_the_sources_or_those_that_alarm():
    assert experiments.names_to_show([], NAMES, EMERGENCY) == list(experiments.SHOWN)
    assert experiments.names_to_show(["robbery"], NAMES, EMERGENCY) == ["robbery"]
    assert experiments.names_to_show([], ("cat", "fire alarm", "kettle"), (1, 2)) == ["fire alarm", "kettle"]
    assert experiments.names_to_show([], tuple("abcd"), ()) == ["a", "b", "c"]
    apart, composed = (unicodedata.normalize(form, "화재") for form in ("NFD", "NFC"))
    assert experiments.names_to_show([apart], (composed, "개"), ()) == [composed]
    with pytest.raises(ValueError, match="no class 'fires' to show"):
        experiments.names_to_show(["fires"], NAMES, EMERGENCY)


def test_pictures_hold_the_spans_of_the_truth(heard):
    evaluation, truth = heard
    shown = experiments.shown_clips(evaluation, ["fire", "collapse"], truth)
    arrays = experiments.relevance_pictures(evaluation, shown, truth)
    assert arrays["mel"].shape == arrays["relevance"].shape == (len(shown), 80, 100)
    for place, clip in enumerate(shown):
        for kind, name in enumerate(("event", "speech")):
            spans = arrays["spans"][(arrays["spans"][:, 0] == place) & (arrays["spans"][:, 1] == kind)][:, 2:]
            assert spans.tolist() == [[label.onset, label.offset] for label in truth.clips[clip].of(name)]
    assert figures.relevance(arrays, 1.0)
    nothing = experiments.relevance_pictures(evaluation, [], None)
    assert figures.relevance(nothing, 1.0) and nothing["mel"].shape[0] == 0


def test_stem_rows_without_a_stem_that_the_network_ignores(heard):
    """A network with a constant output loses no accuracy when a stem is silenced."""
    evaluation, truth = heard
    deaf = build_cnn(VARIANT, len(evaluation.clips.classes)).eval()
    nn.init.zeros_(deaf[-1].weight)
    table = experiments.stem_rows(replace(evaluation, model=deaf), truth, seed=0).set_index("measure").value
    for stem in ("speech", "event", "background"):
        assert table[f"accuracy lost without {stem} (points)"] == 0
        assert table[f"relevance on {stem} (%)"] == 0
    assert 0 < table["energy of event (%)"] < 100


def test_the_accuracy_lost_without_a_stem_is_of_the_clips_that_are_then_taken_for_another_class(heard):
    evaluation, truth = heard
    waves = torch.from_numpy(truth.stems).float() / 32768
    whole, *without = (
        experiments.logits_of(evaluation.model, sounds.features_of(waves[:, kept].sum(1))).argmax(1)
        for kept in ([0, 1, 2], [1, 2], [0, 2], [0, 1])
    )
    as_heard = replace(evaluation, clips=replace(evaluation.clips, labels=whole))
    table = experiments.stem_rows(as_heard, truth, seed=0).set_index("measure").value
    both = torch.tensor([bool(clip.of("speech")) and bool(clip.of("event")) for clip in truth.clips])
    lost = [100 * (one != whole)[both].float().mean().item() for one in without]
    assert table["accuracy, all stems (%)"] == 100 and max(lost) > 0
    for stem, share in zip(("speech", "event", "background"), lost, strict=True):
        assert table[f"accuracy lost without {stem} (points)"] == pytest.approx(share)


def test_only_held_out_clips_are_explained_and_shown(heard):
    evaluation, truth = heard
    half = replace(evaluation, explained=torch.arange(60) % 2 == 0)
    assert (
        len(experiments.explained(half, 60, seed=1)) == 30 and not (experiments.explained(half, 60, seed=1) % 2).any()
    )
    for some in (truth, None):
        shown = experiments.shown_clips(half, list(NAMES), some)
        assert shown and not any(clip % 2 for clip in shown)


def test_stem_rows_are_consistent(heard):
    evaluation, truth = heard
    table = experiments.stem_rows(evaluation, truth, seed=0).set_index("measure")
    both = sum(bool(clip.of("speech")) and bool(clip.of("event")) for clip in truth.clips)
    assert (table.clips == both).all()
    shares = [table.value[f"relevance on {stem} (%)"] for stem in ("speech", "event", "background")]
    assert 0 < sum(shares) <= 100 + 1e-6
    for stem in ("speech", "event", "background"):
        difference = table.value[f"relevance on {stem} (%)"] - table.value[f"energy of {stem} (%)"]
        assert table.value[f"relevance - energy, {stem} (points)"] == pytest.approx(difference)


def test_a_random_network_is_at_its_null(heard):
    """Its weights are drawn like those of the null, so on average each stem gets about the same relevance."""
    evaluation, truth = heard
    tables = []
    for seed in range(4):
        torch.manual_seed(seed)
        model = build_cnn(VARIANT, len(evaluation.clips.classes)).eval()
        logits = experiments.logits_of(model, evaluation.clips.mel)
        one = replace(evaluation, model=model, logits=logits)
        tables.append(experiments.stem_rows(one, truth, seed=5).set_index("measure").value)
    for stem in ("speech", "event", "background"):
        found = np.mean([table[f"relevance - random networks, {stem} (points)"] for table in tables])
        assert abs(found) < 3


def test_faithfulness_of_every_method(heard):
    evaluation, _ = heard
    chosen = experiments.explained(evaluation, 6, seed=1)
    assert len(chosen) == 6 == len(set(chosen.tolist()))
    assert torch.equal(chosen, experiments.explained(evaluation, 6, seed=1))
    frame, areas = experiments.faithfulness_curves(evaluation, chosen, steps=3, seed=0)
    assert set(frame.panel) == {"flipping", "randomised"} and set(frame.method) == {*evaluation.methods, "random"}
    start = frame[(frame.panel == "flipping") & (frame.x == 0)].value
    assert start.max() - start.min() < 1e-6, "nothing is flipped yet"
    assert len(areas) == 3 and (areas.clips == 6).all()
    for method, some in frame[frame.panel == "flipping"].groupby("method"):
        curves = some.pivot(index="x", columns="order", values="value")
        between = np.trapezoid(curves["least"] - curves["most"], curves.index)
        found = areas.set_index("measure").value[f"flipping area, {method}"]
        assert found == pytest.approx(between, abs=1e-6), "above 0 where the order is right"
    assert figures.faithfulness(frame)


def test_a_planted_shortcut_is_taken_and_found(tmp_path):
    """All clips are noise, so the tone planted in one class is all there is to learn."""
    some, test = clips(80, seed=0), clips(40, seed=1)
    some = replace(some, mel=torch.randn(80, 1, 40, 120).half() * 0.3)
    test = replace(test, mel=torch.randn(40, 1, 40, 120).half() * 0.3)
    settings = Settings(epochs=5, batch_size=8, learning_rate=0.01, time_mask=0, frequency_mask=0)
    rows = experiments.planted_rows(
        validated(some, torch.arange(80) >= 0), some, test, settings, uncued=build_cnn(VARIANT, 4).eval(), number=2,
        seed=0, checkpoint=tmp_path / "planted",
    ).set_index("measure")  # fmt: skip
    taken = rows.value.filter(like="shortcut taken")
    assert taken.iloc[0] > 80 > 50 > taken.iloc[1]
    found = rows.loc["planted tone found by LRP (area under ROC)"]
    assert found.value > 0.8 and found.clips == 30
    level = rows.loc["planted tone found by the input's level (area under ROC)"]
    without = rows.loc["planted tone found by LRP of a network without it (area under ROC)"]
    assert found.value > without.value and 0 < level.value <= 1


def test_variants_are_drawn_with_their_intervals():
    some = clips(40)
    found = {name: validated(some, torch.arange(40) >= bad) for name, bad in (("plain", 4), ("deeper", 20))}
    figure = figures.variants(experiments.curves(found, 0), experiments.variant_table(found, some, seed=0))
    left, right = figure.axes[:2]
    assert [label.get_text() for label in right.get_yticklabels()] == ["plain", "deeper"]
    assert len(left.lines) == 2
