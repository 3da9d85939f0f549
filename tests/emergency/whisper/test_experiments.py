"""Notebook 04's functions: the ratio, onsets, tables and figures."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from toy import share_speech

from lib.emergency import figures
from lib.emergency.classes import EMERGENCY, NAMES
from lib.emergency.cnn import experiments
from lib.emergency.data import sounds
from lib.emergency.synthesis.soundscapes import draw_soundscapes
from lib.emergency.whisper import ablations
from lib.emergency.whisper import experiments as recognition
from lib.emergency.whisper import figures as drawings
from lib.emergency.whisper import model as whisper
from lib.emergency.whisper.experiments import choose
from lib.emergency.whisper.model import WhisperSize
from lib.emergency.whisper.text import fit_text, normalise
from lib.emergency.whisper.training import (
    UNKNOWN,
    FrameOutputs,
    Settings,
    label_frames,
    predict_frames,
    starting_at,
)


@pytest.fixture(scope="module")
def sets():
    drawn = draw_soundscapes(60, split="test")
    parts = [sounds.load("soundscapes", split, count=40) for split in ("train", "validation")]
    return *(label_frames(part) for part in parts), label_frames(sounds.of_soundscapes(drawn, "test")), drawn


@pytest.fixture(scope="module")
def fresh(sets):
    lines = [text for text in sets[0].texts if text]
    return partial(whisper.build, lines, sets[0].classes, WhisperSize(16, 1, 1, 2, 300), stack=4, hidden=8, seed=0)


@pytest.fixture(scope="module")
def predictions(sets, fresh):
    found, (learned, validation) = recognition.judge(fresh(), *sets[:3], ratio=0.5), sets[:2]
    texts, labels = (*learned.texts, *validation.texts[:20]), torch.cat([learned.labels, validation.labels[:20]])
    return replace(found, ideal=fit_text(texts, labels, 20))  # as if these lines were in the training set


def right(predictions):
    """Return the same predictions, but all of them right."""
    test = predictions.test
    wanted = torch.nn.functional.one_hot(test.targets(4), 20).float() * 20
    heard = FrameOutputs(wanted, 20.0 * torch.nn.functional.one_hot(test.labels, 20), test.texts)
    before = replace(predictions.validation_outputs, texts=predictions.validation.texts)
    return replace(predictions, outputs=heard, validation_outputs=before, temperature=1.0)


class TestTask:
    VALUES = {
        "dataset": "soundscapes", "checkpoint": "", "seconds": 1.0, "seed": 0, "train_count": 40,
        "validation_count": 20, "test_count": 20, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2,
        "stack": 4, "hidden": 8, "epochs": 1, "batch_size": 8,
        "learning_rate": 1e-3, "equaliser": 3.0, "time_mask": 0.0, "frequency_mask": 0.0,
        "precision": "no", "device": "cpu", "head_epochs": 2, "head_rate": 0.01, "trained_rate": 0.1,
        "layer_decay": 0.5,
        "adapters": 0,
    }  # fmt: skip

    def test_a_ratio_that_is_none_is_told_before_anything_is_loaded(self, monkeypatch):
        monkeypatch.setattr(recognition, "three_sets", lambda *_, **__: pytest.fail("loaded"))
        with pytest.raises(ValueError, match="ratio is 2"):
            recognition.task(self.VALUES | {"ratios": [0.5, 2.0]})

    def test_a_text_that_is_too_long_is_told_before_spectrograms_are_computed(self, monkeypatch):
        *parts, truth = recognition.three_sets("soundscapes", seconds=1.0, seed=0, train_count=20, validation_count=20,
                                               test_count=20)  # fmt: skip
        parts[0] = replace(parts[0], texts=("".join(map(chr, range(0x4E00, 0x4E50))), *parts[0].texts[1:]))
        monkeypatch.setattr(recognition, "three_sets", lambda *_, **__: (*parts, truth))
        monkeypatch.setattr(recognition, "label_frames", lambda *_: pytest.fail("computed"))
        with pytest.raises(ValueError, match="the decoder has 64 positions"):
            recognition.task(self.VALUES | {"ratios": [0.5]})

    def test_from_scratch_there_is_no_first_stage(self, tmp_path):
        used = []
        task = recognition.task(self.VALUES, used.append)
        assert [(one.split, len(one)) for one in used] == [("train", 40), ("validation", 20), ("test", 20)]
        assert len(task.samples) == 20 and recognition.prepared(task, seed=0, checkpoints=tmp_path) is task
        assert not list(tmp_path.iterdir())

    def test_from_a_checkpoint_the_head_learns_first_and_alone(self, tmp_path, monkeypatch):
        share_speech(tmp_path / "out")
        monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path / "out"))
        whisper.build(["불"], NAMES, WhisperSize(16, 2, 1, 2, 300), stack=4, hidden=8).save(tmp_path / "trained")
        task = recognition.task(self.VALUES | {"checkpoint": str(tmp_path / "trained")})
        assert task.settings.trained_rate == 0.1
        # The learning rate and optimizer for training from scratch would destroy pretrained weights.
        assert (task.settings.optimizer, task.settings.learning_rate) == ("adamw", 0.01)
        before = dict(task.fresh().named_parameters())
        after = dict(recognition.prepared(task, seed=0, checkpoints=tmp_path).fresh().named_parameters())
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {name for name in before if name.startswith("head.")} and "head.layer_logits" in changed
        model = recognition.trained(task.fresh, task.clips, task.settings, 0.0, seed=0, checkpoints=tmp_path)
        positions = "whisper.model.encoder.embed_positions.weight"  # which transformers freezes
        assert not torch.equal(before[positions], dict(model.named_parameters())[positions])
        half = replace(task, head=replace(task.head, precision="bf16"))
        head = recognition.prepared(half, seed=0, checkpoints=tmp_path / "half").fresh().head
        assert "forward" not in vars(head)  # Accelerate's would compute in bf16 from then on

    @pytest.mark.parametrize(("changes", "message"), [
        ({"epochs": 0}, "set checkpoint and head_epochs"),
        ({"epochs": 0, "checkpoint": "x", "head_epochs": 0}, "set checkpoint and head_epochs"),
        ({"epochs": 0, "checkpoint": "x", "ratios": [0.3]}, r"set ratios = \[0.0\]"),
    ])  # fmt: skip
    def test_no_epochs_are_refused_where_nothing_would_be_trained(self, monkeypatch, changes, message):
        monkeypatch.setattr(recognition, "three_sets", lambda *_, **__: pytest.fail("loaded"))
        with pytest.raises(ValueError, match=message):
            recognition.task(self.VALUES | changes)


class TestRatio:
    def test_sweep(self, sets, fresh, tmp_path):
        settings, where = Settings(0.0, 1, 8), {"seed": 0, "checkpoints": tmp_path}
        ratio, table = recognition.sweep(fresh, *sets[:2], settings, [0.0, 0.5], **where)
        assert table.ratio.tolist() == [0, 0.5] and ratio == choose(table)
        assert np.isnan(table.cer[0]) and table.cer[1] > 0 and table.moments.between(0, 100).all()
        for name in ("moments", "clips"):
            assert table[name].between(table[f"{name}_low"], table[f"{name}_high"]).all()
        models = [recognition.trained(fresh, sets[0], settings, one, **where) for one in (0.0, 0.5)]
        found, wanted = predict_frames(models[1], sets[1].mel, words=False).moments.argmax(2), sets[1].targets(4)
        assert table.moments[1] == pytest.approx(100 * (found == wanted).float().mean().item(), abs=1e-3)
        assert models[0].digest() != models[1].digest() != fresh().digest()
        drawings.ratios(table)
        drawings.ratios(pd.concat([table, table.assign(seed=1)]))

    @pytest.mark.parametrize("ratio", [0.0, 0.3])
    def test_one_ratio_alone_is_not_trained_to_be_chosen(self, sets, fresh, tmp_path, monkeypatch, ratio):
        monkeypatch.setattr(recognition, "train", lambda *_, **__: pytest.fail("trained"))
        where = {"seed": 0, "checkpoints": tmp_path}
        assert recognition.sweep(fresh, *sets[:2], Settings(0.0, 1, 8), [ratio], **where) == (ratio, None)
        assert not list(tmp_path.iterdir())

    def table(self, *rows):
        return pd.DataFrame(rows, columns=["ratio", "moments", "cer"])

    def test_choice(self):
        assert choose(self.table((0.0, 90, np.nan), (0.3, 80, 50), (0.7, 70, 30), (1.0, 5, 10))) == 0.7
        assert choose(self.table((0.3, 80, 500), (0.7, 79, 100))) == 0.3  # a CER above 100 is as bad as 100
        assert choose(self.table((0.0, 80, np.nan))) == 0  # no texts


class TestOnsets:
    def test_table(self, sets, fresh, tmp_path):
        task = recognition.Task(*sets[:3], None, sets[3], None, fresh, Settings(0.0, 1, 8))
        how = {"seconds": [0.0, 1.0], "longest": 2.0, "seed": 0, "checkpoints": tmp_path}
        table = ablations.onsets(task, sets[0], task.settings, **how)
        assert table.training.tolist() == ["all at 0 s"] * 2 + ["anywhere"] * 2
        assert table.clips.nunique() == 1 and 0 < table.clips[0] < 60
        for share in ("moments", "accuracy"):
            assert table[share].between(table[f"{share}_low"], table[f"{share}_high"]).all()
            assert (table[f"{share}_low"] < table[f"{share}_high"]).all()
        drawings.onsets(table)

    def test_extent(self, sets):
        extent = ablations._extent(sets[2])
        for seconds, clip, row in zip(extent.tolist(), sets[3].clips, sets[2].moments, strict=True):
            labels = [label for label in clip.labels if label.kind != "distractor"]
            if row.any():
                wanted = max(label.offset for label in labels) - min(label.onset for label in labels)
                assert seconds == pytest.approx(wanted, abs=0.05)
            else:
                assert seconds == float("inf")


class TestTables:
    def test_a_perfect_ear(self, predictions):
        table = recognition.recognition_table(right(predictions), EMERGENCY, seed=1).set_index("measure")
        assert (table.seed == 1).all()
        for measure in ("accuracy of moments", "macro F1 of moments", "accuracy of clips", "emergency or not"):
            assert table.value[measure] == 100
        assert table.value["PSDS1 (0 to 1)"] > 0.95 and table.value["event F1, collars of 200 ms"] > 80
        assert table.value["missed emergencies"] == table.value["false alarms"] == 0
        assert table.value["character error rate, unseen lines"] == 0
        seen = table.loc["character error rate, seen lines"]  # no test clip of soundscapes has a seen line
        assert seen["count"] == seen.validation == seen.validation_low == 0 and np.isnan(seen.value)
        assert table.value["clips with invented words"] == 0
        assert table.value["emergency or not, from the text"] == table.value["emergency or not, from what was said"]
        assert set(recognition.SOURCE) <= set(table.index)
        both = table.drop(index=[name for name in table.index if "lines" in name])
        learned = both.index.str.startswith("emergency or not, from the text")  # fitted on validation clips
        assert both.validation[~learned].notna().all() and both.validation[learned].isna().all()
        known = both[~both.index.str.contains("calibration|always|never|balanced|average")]
        assert table.value["accuracy of moments without silence"] == 100
        assert table.value["emergency or not, balanced accuracy"] == 100
        constants = [table.value[f"emergency or not, {name} alarming"] for name in ("always", "never")]
        assert sum(constants) == pytest.approx(100)
        assert (known.low <= known.value).all() and (known.value <= known.high).all()

    def test_both_sides_of_the_alarm_make_its_balanced_accuracy(self, predictions):
        """After calibration: with these logits, the temperature moves clips to the other side of one half."""
        logits = 3 * torch.randn(60, 20, generator=torch.Generator().manual_seed(0))
        some = replace(predictions, temperature=0.2, outputs=replace(predictions.outputs, clips=logits))
        table = recognition.recognition_table(some, EMERGENCY, seed=0).set_index("measure")
        value, count = table.value, table["count"]
        emergencies = torch.isin(some.test.labels, torch.tensor(list(EMERGENCY))).sum().item()
        assert (count["missed emergencies"], count["false alarms"]) == (emergencies, 60 - emergencies)
        sides = (value["missed emergencies"] + value["false alarms"]) / 2
        assert value["emergency or not, balanced accuracy"] == pytest.approx(100 - sides)

    def test_moments_are_counted_as_elsewhere(self, predictions):
        each = recognition.clip_accuracies(predictions.test, predictions.outputs, 4)
        wanted = predictions.test.targets(4).numpy()
        right = predictions.outputs.moments.argmax(2).numpy() == wanted
        assert np.nanmean(each) == pytest.approx(100 * right[wanted >= 0].mean())

    def test_without_times_and_words(self, predictions):
        test = replace(predictions.test, moments=predictions.test.labels[:, None].expand(-1, 200).clone(), texts=None,
                       classes=tuple(f"class {k}" for k in range(20)))  # fmt: skip
        test.moments[0] = UNKNOWN
        table = recognition.recognition_table(replace(predictions, test=test, reader=None), (1,), seed=0)
        assert not table.measure.str.contains("F1|PSDS|character|text|moments").any() and len(table) == 9

    def test_cer(self, predictions):
        table = recognition.cer_table(right(predictions), seed=0)
        assert len(table) == 8 and (table.cer == 0).all() and (table.chance > 50).all()

    def test_seen_is_a_line_of_the_training_clips_and_unseen_one_that_is_not(self, predictions):
        learned = {normalise(line, "no punctuation") for line, _ in predictions.ideal.learned}
        kinds = {kind: said for kind, _, said, _ in recognition._kinds_of_lines(predictions)}
        assert {line for line in predictions.validation.texts[:20] if line} <= set(kinds["seen"])
        assert not any(normalise(line, "no punctuation") in learned for line in kinds["unseen"] if line)
        assert all(normalise(line, "no punctuation") in learned for line in kinds["seen"])
        assert sum(map(len, kinds.values())) < len(predictions.test) + len(predictions.validation)


class TestFigures:
    def test_timelines_by_rank(self, predictions):
        samples = torch.randint(-99, 99, (60, 64_000), dtype=torch.int16)
        found = recognition.timelines(predictions, EMERGENCY, samples)
        assert found["truth"].shape == found["found"].shape == (3, 50) and (np.diff(found["accuracy"]) <= 0).all()
        drawings.timelines(found)

    def test_lines(self, predictions):
        table = recognition.read_lines(predictions, 3)
        assert table.lines.tolist() == ["seen"] * 3 + ["unseen"] * 3 and all(table.reference)
        drawings.lines(table)
        drawings.lines(table[:0])

    def test_confusion_and_relevance(self, predictions, sets):
        evaluation = predictions.evaluation()
        figures.confusion(experiments.matrices(evaluation, EMERGENCY))
        picked = experiments.shown_clips(evaluation, ["fire"], sets[3])
        pictures = experiments.relevance_pictures(evaluation, picked, sets[3])
        assert pictures["relevance"].shape == (len(picked), 80, 400)
        figures.relevance(pictures, 4.0)
        assert experiments.relevance_pictures(evaluation, [], sets[3])["relevance"].shape == (0, 80, 400)

    def test_encoder_table(self, predictions, sets):
        table = recognition.encoder_table(
            predictions.evaluation(), torch.arange(3), sets[3], steps=2, seed=0
        ).set_index("measure")
        shares = [table.value[f"energy of {stem} (%)"] for stem in ("speech", "event", "background")]
        assert sum(shares) <= 100.01 and "flipping area, attention rollout" in table.index
        assert 0 < table.value["random networks of event (%)"] < 100

    def test_encoders_of_random_weights_explain_about_as_their_null(self, predictions, sets, monkeypatch):
        """A random network has about the relevance of the random networks that are its null."""
        trained = copy.deepcopy(predictions.model)
        with torch.no_grad():
            trained.whisper.model.encoder.embed_positions.weight.normal_()
        drawn = replace(predictions, model=recognition.faithfulness.redrawn(trained, 77))
        positions = drawn.model.whisper.model.encoder.embed_positions.weight
        assert torch.equal(positions, whisper.sinusoids(*positions.shape))
        drawn = replace(drawn, outputs=predict_frames(drawn.model, drawn.test.mel, words=False))
        found = recognition.encoder_table(drawn.evaluation(), torch.arange(1), sets[3], steps=1, seed=0)
        found = found.set_index("measure")
        for stem in ("speech", "event"):
            assert abs(found.value[f"relevance - random networks, {stem} (points)"]) < 12


@pytest.mark.parametrize(("draw", "x"), [(drawings.onsets, "onset"), (drawings.learning_curves, "size")])
def test_bars_are_the_interval_of_one_seed_and_the_deviation_of_several(draw, x):
    rows = [
        {"training": "head", x: place, "seed": seed, "silent": 40.0, "moments": value, "moments_low": value - 9,
         "moments_high": value + 9, "accuracy": value, "accuracy_low": value - 9, "accuracy_high": value + 9}
        for place in (1, 2) for seed, value in enumerate((50.0, 52.0, 54.0))
    ]  # fmt: skip

    def bars(table):
        (lines,) = draw(table).axes[0].containers[0].lines[2]
        return {tuple(segment[:, 1]) for segment in lines.get_segments()}

    table = pd.DataFrame(rows)
    assert bars(table[table.seed == 0]) == {(41.0, 59.0)} and bars(table) == {(50.0, 54.0)}


def test_no_onsets_where_no_test_clip_is_short_enough_and_nothing_is_trained(sets, tmp_path):
    how = {"seconds": [0.0], "longest": 0.0, "seed": 0, "checkpoints": tmp_path}
    task = recognition.Task(*sets[:3], None, sets[3], None, None, Settings(0.0, 1, 8))
    assert ablations.onsets(task, sets[0], task.settings, **how).empty and not list(tmp_path.iterdir())


def test_the_head_of_each_onset_is_trained_on_its_own_clips(sets, fresh, tmp_path, monkeypatch):
    """Otherwise a checkpoint's head would pass on random onsets to the model trained at 0 s only."""
    starts = []
    monkeypatch.setattr(recognition, "train_head", lambda model, clips, *_, **__: starts.append(clips.checksum))
    task = recognition.Task(*sets[:3], None, sets[3], Settings(0.0, 1, 8), fresh, Settings(0.0, 0, 8))
    shifts, real = [], ablations.trained
    monkeypatch.setattr(ablations, "trained", lambda *args, **how: shifts.append(args[2].shift) or real(*args, **how))
    table = ablations.onsets(task, sets[0], task.settings, seconds=[0.0], longest=2.0, seed=0, checkpoints=tmp_path)
    short = sets[2].part(ablations._extent(sets[2]) <= 2.0, "short")
    silent = (short.targets(4) == 0).double().mean(1).mean().item()  # rolling the clips moves silence, no more
    assert table.clips.tolist() == [len(short)] * 2
    assert table.silent.tolist() == pytest.approx([100 * silent] * 2, abs=2)
    assert shifts == [False, True]  # random shifts would move the sounds away from 0 s
    assert starts == [starting_at(sets[0], 0.0).checksum, sets[0].checksum]


@pytest.fixture(scope="class")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    share_speech(folder / "out")
    whisper.build(["불"], NAMES, WhisperSize(16, 2, 1, 2, 300), stack=4, hidden=8).save(folder / "trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTPUT_ROOT", str(folder / "out"))
        yield recognition.task(TestTask.VALUES | {"checkpoint": str(folder / "trained")})


class TestOtherDataAndFewer:
    VALUES = TestTask.VALUES | {"scratch_epochs": 1}

    def test_learning_curves_differ_in_start_and_in_what_learns(self, task, tmp_path):
        kinds = ablations.starts(task, self.VALUES)
        table = ablations.learning_curve(kinds, [20, 40], EMERGENCY, seed=0, checkpoints=tmp_path)
        assert table["size"].tolist() == [20, 40] * 4 and (table.clips == 20).all()
        names = ["all weights", "adapters of rank 8", "head, frozen encoder", "from scratch"]
        assert table.training.unique().tolist() == names
        assert sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("head")) == [
            "first-20",
            "first-40",
        ]
        assert kinds["from scratch"].fresh().head.layer_logits is None and kinds["from scratch"].head is None
        drawings.learning_curves(table)

    def test_the_first_clips_are_those_of_more(self, task):
        assert task.clips.first(0) is task.clips.first(10**6) is task.clips
        few, more = task.clips.first(5), task.clips.first(12)
        assert len(few) == 5 and torch.equal(few.mel, more.mel[:5]) and few.texts == more.texts[:5]
        assert len({task.clips.checksum, few.checksum, more.checksum}) == 3

    def test_each_set_is_trained_on_and_judged_on_the_test_of_both(self, task, tmp_path):
        other = replace(task, clips=task.clips.part(torch.arange(40) < 20, "half"),
                        test=task.test.part(torch.arange(20) < 10, "half"))  # fmt: skip
        settings = replace(task.settings, epochs=1)
        scratch = {"one": replace(task, head=None), "two": replace(other, head=None)}
        table = ablations.transfer(scratch, settings, EMERGENCY, seed=0, checkpoints=tmp_path)
        assert table[["training", "test"]].values.tolist() == [
            ["one", "one"],
            ["one", "two"],
            ["two", "one"],
            ["two", "two"],
        ]
        assert table.clips.tolist() == [20, 10, 20, 10]
        assert (tmp_path / "ratio-0-of-1").exists() and (tmp_path / "two" / "ratio-0-of-1").exists()
        places = tmp_path / "heads"
        heads = ablations.transfer({"one": task, "two": other}, settings, EMERGENCY, seed=0, checkpoints=places)
        assert sorted(path.name for path in places.iterdir() if path.is_dir()) == ["head", "two"]
        assert len(heads) == 4 and not heads.moments.equals(table.moments)
