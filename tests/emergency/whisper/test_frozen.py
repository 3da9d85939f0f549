"""The head on a frozen encoder."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lib.data.catalog import DataError
from lib.emergency.classes import NAMES
from lib.emergency.whisper import ablations, figures, frozen
from lib.emergency.whisper.model import EmergencyWhisper, WhisperSize, build, encode
from lib.emergency.whisper.training import Clips, Settings


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path))
    return tmp_path / "build/cache/hidden"


def model(seed=0):
    torch.manual_seed(seed)
    small = build(["불"], NAMES, WhisperSize(16, 3, 1, 2, 300), hidden=16, seed=seed)
    return EmergencyWhisper(small.whisper, small.tokenizer, NAMES, stack=2, hidden=16, all_layers=True).eval()


def clips(count=24, seed=0):
    """Clips in which each class is loud in its own bands from the first frame to the last."""
    draw = torch.Generator().manual_seed(seed)
    mel, labels = torch.randn(count, 80, 40, generator=draw) * 0.1, torch.arange(count) % 3
    for row, label in zip(mel, labels.tolist(), strict=True):
        row[10 * label : 10 * label + 10] += 1
    moments = labels[:, None].expand(count, 20).clone()
    return Clips(mel.half(), labels, NAMES, moments, None, "bands", f"bands {count} {seed}")


def test_the_states_of_every_layer_once(kept, monkeypatch):
    whole, some = model(), clips(20)
    states = frozen.hidden_states(whole, some)
    with torch.no_grad():
        wanted = torch.stack(encode(whole.whisper.model.encoder, some.mel.float()), 1)
    np.testing.assert_allclose(states, wanted.numpy(), rtol=2e-3, atol=2e-3)
    assert states.dtype == np.float16 and isinstance(states, np.memmap)
    with monkeypatch.context() as patch:
        patch.setattr(frozen, "start", lambda *_: pytest.fail("computed again"))
        assert np.array_equal(frozen.hidden_states(whole, some), states)
    frozen.hidden_states(model(1), some), frozen.hidden_states(whole, clips(20, seed=1))
    monkeypatch.setattr(frozen, "encode", lambda *states: encode(*states))
    frozen.hidden_states(whole, some)
    assert len(list(kept.iterdir())) == 4  # other weights, other clips, other code


def test_an_interrupted_file_is_none(kept, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(frozen, "encode", broken)
        with pytest.raises(KeyboardInterrupt):
            frozen.hidden_states(model(), clips())
    assert not list(kept.iterdir())


def test_no_space(monkeypatch):
    monkeypatch.setattr(frozen.shutil, "disk_usage", lambda _: frozen.shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(DataError, match=r"24 clips take .* GB.*OUTPUT_ROOT.*train_count"):
        frozen.hidden_states(model(), clips())


def test_the_head_alone_learns_and_goes_on_from_its_checkpoint(tmp_path):
    settings, whole = Settings(0.0, 12, 8, 0.01, device="cpu"), model()
    encoder = whole.whisper.state_dict()
    before = {name: value.clone() for name, value in encoder.items()}
    history = frozen.train_head(whole, clips(), settings, seed=0, checkpoint=tmp_path / "head")
    assert history.label_loss.iloc[-1] < 0.2 * history.label_loss.iloc[1]
    other = clips(12, seed=5)
    with torch.no_grad():
        found = whole(other.mel.float())
    assert (found.argmax(2) == other.targets(2)).float().mean() > 0.95
    assert all(torch.equal(before[name], value) for name, value in whole.whisper.state_dict().items())
    again = model()
    assert frozen.train_head(again, clips(), settings, seed=0, checkpoint=tmp_path / "head").equals(history)
    assert again.digest() == whole.digest()


def test_the_head_learns_from_the_chosen_clips_alone(tmp_path):
    settings, some = Settings(0.0, 2, 8, 0.01, device="cpu"), clips()
    chosen = torch.arange(len(some)) % 4 > 0
    heads = []
    for labels in (some.labels, torch.where(chosen, some.labels, 7)):  # those that are not chosen have another label
        moments = labels[:, None].expand(-1, 20).clone()
        head = model()
        frozen.train_head(head, replace(some, labels=labels, moments=moments), settings, seed=0, chosen=chosen)
        heads.append(head.digest())
    assert heads[0] == heads[1]
    frozen.train_head(model(), some, settings, seed=0, chosen=chosen, checkpoint=tmp_path / "head")
    other = model()
    frozen.train_head(other, some, settings, seed=0, chosen=~chosen, checkpoint=tmp_path / "head")
    fresh = model()
    frozen.train_head(fresh, some, settings, seed=0, chosen=~chosen)
    assert other.digest() == fresh.digest()  # the checkpoint of other clips is not resumed


class TestCrossValidation:
    VALUES = {"dataset": "esc50", "seconds": 0.4, "train_count": 0, "seed": 0, "precision": "no", "device": "cpu",
              "batch_size": 8, "epochs": 0, "head_epochs": 12, "head_rate": 0.01, "checkpoint": "whisper-base",
              "equaliser": 0.0, "time_mask": 0.0, "frequency_mask": 0.0, "trained_rate": 0.0, "layer_decay": 1.0,
              "adapters": 0}  # fmt: skip

    def table(self, monkeypatch, tmp_path, *, by_fold):
        """Cross-validate over three folds; `by_fold`: in each, the bands have other classes."""
        some, folds = clips(72), torch.arange(72) // 3 % 3
        if by_fold:
            labels = (some.labels + folds) % 3
            some = replace(some, labels=labels, moments=labels[:, None].expand(-1, 20).clone())
        monkeypatch.setattr(ablations.sounds, "load", lambda *_, **__: SimpleNamespace(folds=folds, classes=NAMES))
        monkeypatch.setattr(ablations, "label_frames", lambda *_: some)
        monkeypatch.setattr(ablations, "fresh_model", lambda *_: model)
        return ablations.cross_validation(self.VALUES, (1, 2), seed=3, checkpoints=tmp_path)

    def test_clips_of_other_folds_are_recognised(self, monkeypatch, tmp_path):
        table = self.table(monkeypatch, tmp_path, by_fold=False)
        assert table.classifier.tolist() == ["head", "logistic regression"]
        assert set(table.seed) == {3} and set(table.folds) == {3} and set(table.clips) == {72}
        assert table.accuracy.min() > 95 and table.binary_accuracy.min() > 95
        assert table.always.tolist() == [pytest.approx(200 / 3)] * 2

    def test_what_is_true_of_its_own_fold_alone_is_learned_by_none(self, monkeypatch, tmp_path):
        assert self.table(monkeypatch, tmp_path, by_fold=True).accuracy.max() < 10


def test_what_each_layer_is_worth():
    table = frozen.layer_table(model(), clips(60), clips(30, seed=3), seed=4)
    assert table.layer.tolist() == [1, 2, 3] and set(table.seed) == {4} and set(table.clips) == {30}
    assert table.weight.sum() == pytest.approx(100) and table.accuracy.min() > 90
    assert table.accuracy.between(table.low, table.high).all()
    figures.layers(table)
