import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from lib.emergency.cnn import network as cnn
from lib.emergency.cnn.network import (
    Settings,
    Variant,
    augment,
    build_cnn,
    cost_of,
    cross_validate,
    logits_of,
    train_cnn,
    variants,
)
from lib.emergency.cnn.relevance import explain
from lib.emergency.features import Mels

TINY = Variant("tiny", channels=(4, 8))
QUICK = Settings(epochs=8, batch_size=8, shift=1.0, time_mask=0.1, frequency_mask=0.1)


def tones(count=64, classes=4, seed=0):
    """Class c sounds from band 8 c upwards at a random time: only the bands identify the class."""
    generator = torch.Generator().manual_seed(seed)
    mel = torch.randn(count, 1, 32, 40, generator=generator) * 0.1
    labels = torch.arange(count) % classes
    start = torch.randint(0, 30, (count,), generator=generator)
    for row, (label, first) in enumerate(zip(labels.tolist(), start.tolist(), strict=True)):
        mel[row, 0, 8 * label : 8 * label + 3, first : first + 8] += 1.5
    names = tuple(f"band {8 * label}" for label in range(classes))
    return Mels(mel.half(), labels, names, torch.arange(count) // 4 % 2, "tones", f"tones-{count}-{seed}")


def test_seven_variants_differ_from_the_first_in_one_thing():
    first, *others = variants()
    assert len(others) == 6
    for other in others:
        changed = [name for name in vars(first) if name != "label" and getattr(first, name) != getattr(other, name)]
        assert len(changed) == 1, other.label


@pytest.mark.parametrize("variant", variants(4), ids=lambda variant: variant.label)
def test_a_network_is_built_as_its_variant_says(variant):
    layers = list(build_cnn(variant, 3))
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    wanted = [count for count in variant.channels for _ in range(variant.convolutions)]
    assert [one.out_channels for one in convolutions] == wanted
    assert {one.kernel_size for one in convolutions} == {(variant.kernel,) * 2}
    assert [one.stride for one in convolutions] == [variant.stride] + [(1, 1)] * (len(wanted) - 1)
    pools = [type(layer) for layer in layers if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d))]
    assert pools == [cnn.POOLING[variant.pooling]] * (len(variant.channels) - 1)
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [variant.dropout] * bool(variant.dropout)


@pytest.mark.parametrize("variant", variants(4), ids=lambda variant: variant.label)
@pytest.mark.parametrize("shape", [(80, 400), (80, 500), (32, 64)])
def test_every_variant_takes_clips_of_any_length(variant, shape):
    assert build_cnn(variant, 7, shape[0])(torch.randn(2, 1, *shape)).shape == (2, 7)


def test_fewer_clips_than_a_batch_holds_are_one_batch():
    few = tones(6, classes=2)
    found = cross_validate(TINY, few, replace(QUICK, epochs=2, batch_size=64), seed=0)
    assert found.logits.shape == (6, 2) and found.history.loss.notna().sum() == 2 * 2


def test_costs_are_those_counted_by_hand():
    cost = cost_of(Variant("", channels=(4, 8)), (80, 400), 5)
    assert cost["parameters"] == 4 * 9 + 8 + 8 * 4 * 9 + 16 + 20 * 8 * 5 + 5
    assert cost["mega_macs"] == pytest.approx((4 * 9 * 40 * 200 + 8 * 4 * 9 * 20 * 100 + 20 * 8 * 5) / 1e6)


def test_rolling_keeps_every_frame_and_differs_by_clip():
    torch.manual_seed(0)
    ramp = torch.arange(40.0).expand(16, 1, 3, 40)
    only = Settings(shift=1.0, time_mask=0, frequency_mask=0)
    rolled, _ = augment(ramp, torch.eye(16), only)
    assert torch.equal(rolled.sort(-1).values, ramp)
    assert torch.equal(rolled.diff(dim=-1) % 40, torch.ones(16, 1, 3, 39))
    assert rolled[:, 0, 0, 0].unique().numel() > 8


def test_masks_hide_at_most_their_share():
    torch.manual_seed(0)
    only = Settings(shift=0, time_mask=0.25, frequency_mask=0.5)
    hidden = (augment(torch.ones(64, 1, 20, 40), torch.eye(64), only)[0] == 0)[:, 0]
    frames, bands = hidden.all(1).sum(1), hidden.all(2).sum(1)
    assert frames.max() <= 10 and bands.max() <= 10
    assert frames.max() > 5 and bands.max() > 5 and frames.unique().numel() > 3


def test_mixup_mixes_clips_as_targets_and_keeps_the_larger_half():
    torch.manual_seed(0)
    only = Settings(shift=0, time_mask=0, frequency_mask=0, mixup=0.5)
    clips = torch.eye(32).view(32, 1, 1, 32)  # clip i is 1 at place i, as its target
    mel, targets = augment(clips, torch.eye(32), only)
    assert torch.allclose(mel[:, 0, 0], targets)
    assert torch.allclose(targets.sum(1), torch.ones(32))
    assert (targets.diagonal() >= 0.5).all() and (targets.diagonal() < 1).any()


def test_nothing_is_changed_where_nothing_is_asked_for():
    clips, targets = torch.randn(4, 1, 8, 10), torch.eye(4)
    same = augment(clips, targets, Settings(shift=0, time_mask=0, frequency_mask=0))
    assert same[0] is clips and same[1] is targets


def test_bands_are_learned_wherever_they_sound():
    trained = train_cnn(TINY, tones(128), tones(32, seed=1), replace(QUICK, epochs=12), seed=0)
    assert trained.history.accuracy.iloc[0] < 60 < 90 < trained.history.accuracy.iloc[-1]
    assert trained.logits.shape == (32, 4) and not trained.models[0].training


def test_scores_come_as_often_as_asked_and_after_the_last_epoch():
    trained = train_cnn(TINY, tones(), tones(16, seed=1), replace(QUICK, epochs=5), seed=0, score_every=2)
    scored = trained.history.dropna(subset="accuracy").epoch.tolist()
    assert scored == [0, 2, 4, 5]


def test_the_seed_decides():
    def weights(seed):
        return train_cnn(TINY, tones(), tones(16, seed=1), replace(QUICK, epochs=1), seed=seed).models[0][0].weight

    assert torch.equal(weights(3), weights(3)) and not torch.equal(weights(3), weights(4))


def test_a_network_trained_in_bf16_computes_in_float32():
    clips = tones(16, seed=1)
    trained = train_cnn(TINY, tones(), clips, replace(QUICK, epochs=2, precision="bf16"), seed=0)
    (model,) = trained.models
    copy = build_cnn(TINY, 4, 32)
    copy.load_state_dict(model.state_dict())
    expected = logits_of(copy, clips.mel)
    # Equal up to float32 rounding, which depends on the layout of the weights; bf16 would differ in the third digit.
    torch.testing.assert_close(trained.logits, expected)
    torch.testing.assert_close(logits_of(model, clips.mel), expected)
    torch.testing.assert_close(*(explain(network, clips.mel, clips.labels) for network in (model, copy.eval())))
    loss = nn.functional.cross_entropy(expected, clips.labels).item()
    assert trained.history.validation_loss.iloc[-1] == pytest.approx(loss, rel=1e-5)


def test_cross_validation_never_scores_a_clip_that_was_learned(monkeypatch):
    seen = []

    def watch(variant, train, validation, settings, **others):
        seen.append((train, validation))
        logits = torch.full((len(validation), 4), float(len(seen)))
        return cnn.Trained(variant, (nn.Sequential(),), pd.DataFrame({"epoch": [1]}), logits)

    monkeypatch.setattr(cnn, "train_cnn", watch)
    clips = tones()
    found = cross_validate(TINY, clips, QUICK, seed=0)
    for train, validation in seen:
        assert not set(train.folds.tolist()) & set(validation.folds.tolist())
        assert len(train) + len(validation) == len(clips) and train.checksum != validation.checksum
    assert torch.equal(found.logits[:, 0], clips.folds + 1.0)
    assert found.history.fold.tolist() == [0, 1]


def test_one_fold_is_refused():
    clips = tones()
    with pytest.raises(ValueError, match="two folds"):
        cross_validate(TINY, replace(clips, folds=torch.zeros_like(clips.folds)), QUICK, seed=0)


def die_in_the_second_epoch(folder):
    scored, score = [], cnn.logits_of

    def deadly(*arguments):
        scored.append(1)
        if len(scored) == 3:  # untrained, epoch 1, epoch 2
            os.kill(os.getpid(), signal.SIGKILL)
        return score(*arguments)

    cnn.logits_of = deadly
    train_cnn(TINY, tones(), tones(16, seed=1), replace(QUICK, epochs=3), seed=0, checkpoint=Path(folder))


def test_a_killed_training_goes_on_and_ends_the_same(tmp_path):
    settings = replace(QUICK, epochs=3)
    whole = train_cnn(TINY, tones(), tones(16, seed=1), settings, seed=0)
    killed = subprocess.run([sys.executable, __file__, str(tmp_path / "run")], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = train_cnn(TINY, tones(), tones(16, seed=1), settings, seed=0, checkpoint=tmp_path / "run")
    assert torch.equal(resumed.logits, whole.logits)
    assert resumed.history.equals(whole.history)


if __name__ == "__main__":
    die_in_the_second_epoch(sys.argv[1])
