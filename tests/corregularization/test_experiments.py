"""Experiments on trained arms: choice of strengths, pruning, tables, verdicts and checks of parameters."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from lib import paths
from lib.corregularization import experiments
from lib.corregularization.analysis import coherence, group_coherence
from lib.corregularization.arms import gram
from lib.corregularization.experiments import (
    FURTHER,
    TUNING_SEEDS,
    at_chosen,
    correlations,
    group_table,
    histories,
    kernels,
    prune,
    pruning_table,
    split_validation,
    summary,
    tune_strengths,
)
from lib.corregularization.losses import as_matrix, select_layers
from lib.corregularization.models import VanillaCNN
from lib.corregularization.training import Settings, Trained, score
from lib.data.augment import as_float, flip_and_shift
from lib.data.catalog import DataError
from lib.data.images import Images
from lib.press import parameters


def images(count=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 2, ("a", "b"), "noise", f"{seed}", "train")


def network(seed=0):
    """Return a small network with non-default batch norm statistics, in evaluation mode."""
    torch.manual_seed(seed)
    model = VanillaCNN(2, (8, 12))
    for block in model.features:
        for tensor in (block[1].running_mean, block[1].bias.data, block[1].weight.data):
            tensor.add_(torch.randn(len(tensor)))
    return model.eval()


def trained(label, seed=0, accuracies=(0.5, 0.6, 0.7), **options):
    """Return a result like those of training, with made-up numbers."""
    epochs = range(len(accuracies))
    history = pd.DataFrame(
        {
            "epoch": epochs,
            "test_loss": [2.0 - accuracy for accuracy in accuracies],
            "test_accuracy": accuracies,
            "task": [np.nan, *(1.0 / epoch for epoch in epochs[1:])],
        }
    )
    layers = pd.DataFrame(
        [
            {
                "epoch": e,
                "layer": f"conv{i}",
                "n": 8,
                "d": 27,
                "rms": 0.1 * i + e,
                "mean": 0.1,
                "max": 0.2 * i,
                "welch": 0,
            }
            for e in epochs
            for i in (1, 2)
        ]
    )
    return Trained(gram(label, 3.0, **options), network(seed), history, layers, {0: torch.zeros(8, 3, 3, 3)})


# --- strengths -------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.2, 0.5, 0.01])
def test_the_validation_split_is_disjoint_and_whole(share):
    both = images(50)
    fit_on, choose_on = split_validation(both, share, seed=1)
    assert len(choose_on) == max(1, round(share * 50))
    found = [image.numpy().tobytes() for part in (fit_on, choose_on) for image in part.pixels]
    assert sorted(found) == sorted(image.numpy().tobytes() for image in both.pixels)
    assert len(set(found)) == 50
    assert torch.equal(split_validation(both, share, seed=1)[1].pixels, choose_on.pixels)
    assert not torch.equal(split_validation(both, share, seed=2)[1].pixels, choose_on.pixels)


def scripted(monkeypatch, loss):
    """Replace training: an arm's last loss is loss(strength, seed). Return the list of calls."""
    calls = []

    def train_arms(arms, train, test, settings, *, seed, checkpoints=None):
        calls.append({"arms": arms, "train": train, "test": test, "seed": seed, "checkpoints": checkpoints})
        found = {}
        for arm in arms:
            # By accuracy, the largest strength would be chosen.
            history = pd.DataFrame({"test_loss": [-99, loss(arm.strength, seed)], "test_accuracy": arm.strength})
            found[arm.label] = Trained(arm, nn.Identity(), history, pd.DataFrame(), {})
        assert len(found) == len(arms)
        return found

    monkeypatch.setattr(experiments, "train_arms", train_arms)
    return calls


def test_a_strength_is_the_best_of_pooled_validation_whatever_the_seed_of_the_run(monkeypatch, tmp_path):
    """With one seed alone 1 would be best, with the other 100; on average 10 is."""
    losses = {1000: {0.1: 0.9, 1: 0.3, 10: 0.4, 100: 0.9}, 1001: {0.1: 1, 1: 1, 10: 0.4, 100: 0.3}}
    monkeypatch.setattr(experiments, "TUNING_SEEDS", tuple(losses))
    calls = scripted(monkeypatch, lambda strength, seed: losses[seed][strength])
    train = images(40)
    tuned = tune_strengths([gram("p = 4", 1.0, power=4)], [0.1, 1, 10, 100], train, Settings(), checkpoints=tmp_path)
    assert tuned.loss.tolist() == pytest.approx([0.95, 0.65, 0.4, 0.6])
    assert tuned.accuracy.tolist() == pytest.approx([10, 100, 1000, 10000])
    assert tuned.factor[tuned.chosen].tolist() == [10] and not tuned.edge.any()
    (arm,) = at_chosen([gram("p = 4", 1.0, power=4)], tuned)
    assert (arm.label, arm.strength, arm.options) == ("p = 4", 10, {"power": 4})
    known = {image.numpy().tobytes() for image in train.pixels}
    assert [call["seed"] for call in calls] == list(losses)
    for call in calls:
        trained_on, chosen_on = ({image.numpy().tobytes() for image in call[key].pixels} for key in ("train", "test"))
        assert trained_on | chosen_on == known  # nothing but training images
        assert not trained_on & chosen_on
    assert calls[0]["checkpoints"] != calls[1]["checkpoints"]


def test_runs_that_share_a_folder_train_different_arms_at_a_time(monkeypatch, tmp_path):
    """For seeds that run in parallel, as a run cannot train a network that another is training."""
    busy, done, most, guard = set(), set(), [], threading.Lock()

    def train_arms(arms, *_, **__):
        labels = {arm.label for arm in arms}
        with guard:
            assert not labels & busy, "one network, trained twice at a time"
            busy.update(labels)
            most.append(len({label[0] for label in busy}))
        time.sleep(0 if labels <= done else 0.05)  # a finished arm is read from its checkpoint
        with guard:
            busy.difference_update(labels)
            done.update(labels)
        scores = pd.DataFrame({"test_loss": [1.0], "test_accuracy": [0.5]})
        return {arm.label: Trained(arm, nn.Identity(), scores, pd.DataFrame(), {}) for arm in arms}

    monkeypatch.setattr(experiments, "train_arms", train_arms)
    arms = [gram(name, 1.0) for name in "abcd"]
    ask = partial(tune_strengths, arms, [0.1, 1, 10], images(), Settings(), checkpoints=tmp_path / "tuning")
    with ThreadPoolExecutor(2) as pool:
        one, two = (task.result() for task in [pool.submit(ask), pool.submit(ask)])
    assert max(most) == 2 and one.equals(two)
    assert one.arm.tolist() == [name for name in "abcd" for _ in range(3)]


@pytest.mark.parametrize("profile", parameters.profiles())
def test_profiles_tune_at_the_budget_of_use(profile):
    values = parameters.resolve("03_corregularization", profile)
    if len(values["strength_grid"]) == 1:
        return
    total = values["train_count"] or 50_000  # of CIFAR-10
    small, tuning = (min(values[name] or total, total) for name in ("small_count", "tuning_count"))
    tuning -= round(0.2 * tuning)
    steps = small // values["batch_size"] * values["small_epochs"]
    assert tuning // values["batch_size"] * values["tuning_epochs"] == pytest.approx(steps, rel=0.02)
    assert tuning == small or not values["tuning_count"]  # or all training images


def test_no_run_is_trained_with_a_seed_of_the_tuning():
    seeds = [yaml.safe_load(file.read_text("utf-8")).get("seeds", [0]) for file in paths.PROFILES.glob("*.yaml")]
    assert seeds and not {seed for some in seeds for seed in some} & set(TUNING_SEEDS)


@pytest.mark.parametrize(
    ("peak", "chosen", "edge", "tried"),
    [
        (1, 1, False, [0.1, 1, 10]),  # not at an edge: nothing more is tried
        (30, 10, False, [0.1, 1, 10, 100]),  # 10 and 100 tie: 10 is nearer to 1, and no longer an edge
        (0.05, 0.1, False, [0.01, 0.1, 1, 10]),
        (1e9, 10 * 10**FURTHER, True, [0.1, 1, 10, *(10 * 10**k for k in range(1, FURTHER + 1))]),  # up to the limit
    ],
)
def test_a_search_goes_on_beyond_its_grid_until_the_best_is_inside_or_a_limit(monkeypatch, peak, chosen, edge, tried):
    scripted(monkeypatch, lambda strength, seed: abs(np.log(strength / 2 / peak)))
    tuned = tune_strengths([gram("a", 2.0)], [0.1, 1, 10], images(), Settings())
    assert tuned.factor.tolist() == pytest.approx(tried)
    assert tuned.factor[tuned.chosen].tolist() == pytest.approx([chosen])
    assert set(tuned.edge) == {edge}
    assert tuned.strength.tolist() == pytest.approx([2 * factor for factor in tried])


def test_where_all_are_equal_the_strength_stays(monkeypatch):
    scripted(monkeypatch, lambda strength, seed: 1.0)
    tuned = tune_strengths([gram("a", 2.0)], [0.1, 1, 10], images(), Settings())
    assert tuned.strength[tuned.chosen].tolist() == [2.0] and len(tuned) == 3


def test_a_grid_of_one_value_trains_nothing(monkeypatch):
    calls = scripted(monkeypatch, lambda strength, seed: strength)
    tuned = tune_strengths([gram("a", 2.0)], [0.5], images(), Settings())
    assert (
        tuned.strength.tolist() == [1.0] and tuned[["loss", "accuracy"]].isna().all(axis=None) and not tuned.edge.any()
    )
    assert not any(call["arms"] for call in calls)


# --- pruning ---------------------------------------------------------------------------------------


def zeroed(layer):
    return layer.weight.flatten(1).norm(dim=1) == 0


@pytest.mark.parametrize("removed", experiments.REMOVED)
@pytest.mark.parametrize("training", [False, True])
def test_pruned_channels_answer_exactly_zero(training, removed):
    model, batch = network(), torch.randn(4, 3, 8, 8)
    pruned = prune(model, 0.5, images(), removed).train(training)
    for depth, block in enumerate(pruned.features):
        gone = zeroed(block[0])
        assert gone.sum() == len(gone) / 2
        answers = pruned.features[: depth + 1](batch)
        assert not answers[:, gone].any()
        assert answers[:, ~gone].any()


def test_weights_that_are_left_after_pruning_are_unchanged_and_statistics_are_of_what_they_see():
    model, train = network(), images(600)
    pruned = prune(model, 0.25, train)
    for before, after in zip(model.features, pruned.features, strict=True):
        kept = ~zeroed(after[0])
        for old, new in ((before[0], after[0]), (before[1], after[1])):
            assert torch.equal(new.weight[kept], old.weight[kept])
    assert torch.equal(pruned.classifier.weight, model.classifier.weight)
    torch.manual_seed(0)
    with torch.no_grad():  # in chunks of 250, 250 and 100
        outputs = [pruned.features[0][0](as_float(flip_and_shift(chunk))) for chunk in train.pixels.split(250)]
    means, variances = (torch.stack([f(output) for output in outputs]).mean(0) for f in (
        lambda output: output.mean((0, 2, 3)), lambda output: output.var((0, 2, 3))))  # fmt: skip
    torch.testing.assert_close(pruned.features[0][1].running_mean, means)
    torch.testing.assert_close(pruned.features[0][1].running_var, variances)


def test_pruning_nothing_changes_nothing_and_the_original_is_never_touched():
    model, batch = network(), torch.randn(4, 3, 8, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.get_rng_state()
    assert torch.equal(prune(model, 0, images())(batch), model(batch))
    assert not torch.equal(prune(model, 0.5, images())(batch), model(batch))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert model.features[0][1].momentum is not None


def test_random_filters_depend_on_the_draw_alone():
    def gone(seed, draw):
        return zeroed(prune(network(seed), 0.5, images(), "random", draw).features[1][0]).tolist()

    assert gone(0, 1) == gone(1, 1)
    assert gone(0, 1) != gone(0, 2)


def test_the_pruning_table_holds_the_accuracy_at_each_share_and_a_mean_over_random_filters():
    arms, train, test = {"a": trained("a"), "b": trained("b", seed=1)}, images(40, seed=1), images(30)
    table = pruning_table(arms, train, test, [0, 0.5], seed=7).set_index(["arm", "removed", "share"])
    assert list(table.index) == [
        (arm, removed, share) for arm in "ab" for removed in ("most similar", "random") for share in (0, 0.5)
    ]
    assert set(table.seed) == {7}
    for arm in "ab":
        model, found = arms[arm].model, table.accuracy[arm]
        assert found["most similar", 0] == found["random", 0] == 100 * score(model, test)[1]
        assert found["most similar", 0.5] == 100 * score(prune(model, 0.5, train), test)[1]
        draws = [score(prune(model, 0.5, train, "random", 21 + draw), test)[1] for draw in range(3)]
        assert found["random", 0.5] == pytest.approx(100 * sum(draws) / 3)


# --- tables ----------------------------------------------------------------------------------------


def test_histories_and_correlations_put_arms_below_each_other():
    arms = {"a": trained("a"), "b": trained("b")}
    curves, values = histories(arms, seed=4), correlations(arms, seed=4)
    assert list(curves.columns) == ["arm", "seed", "epoch", "task", "test_loss", "test_accuracy"]
    assert list(curves.arm) == ["a"] * 3 + ["b"] * 3
    assert list(values.arm) == ["a"] * 6 + ["b"] * 6
    assert {"epoch", "layer", "n", "d", "rms", "mean", "max", "welch"} <= set(values.columns)
    assert set(curves.seed) == set(values.seed) == {4}
    assert curves.index.is_unique
    assert values.index.is_unique


def test_the_summary_is_of_the_last_epoch_and_the_mean_over_layers():
    (row,) = summary({"a": trained("a")}, seed=2, condition="few images").to_dict("records")
    assert row == {
        "condition": "few images",
        "arm": "a",
        "seed": 2,
        "strength": 3.0,
        "accuracy": pytest.approx(70),
        "test_loss": pytest.approx(1.3),
        "train_loss": pytest.approx(0.5),
        "gap": pytest.approx(0.8),
        "rms": pytest.approx(2.15),
        "max": pytest.approx(0.3),
    }


def test_each_condition_is_trained_once_and_what_is_done_is_not_trained_again(monkeypatch, tmp_path):
    calls, arm = [], gram("a", 1.0)

    def train_arms(arms, train, test, settings, *, seed, checkpoints=None):
        calls.append((arms, len(train), seed, checkpoints))
        return {"a": trained("a")}

    monkeypatch.setattr(experiments, "train_arms", train_arms)
    conditions = {"all": (images(20), images(6), Settings()), "few": (images(8), images(6), Settings(epochs=2))}
    done = {"all": {"a": trained("a")}}
    table = experiments.accuracy_table([arm], conditions, done, seed=3, checkpoints=tmp_path)
    assert table[["condition", "images", "tested", "epochs", "chance"]].to_numpy().tolist() == [
        ["all", 20, 6, 5, 50], ["few", 8, 6, 2, 50]
    ]  # fmt: skip
    assert calls == [([arm], 8, 3, tmp_path / "few")]


def test_all_arms_are_cut_into_the_same_groups_whatever_they_were_trained_with():
    arms = {"plain": trained("plain"), "own": trained("own", groups=4)}
    table = group_table(arms, 2, seed=0).set_index("arm")
    assert list(table.groups) == [1, 4]
    for label in ("plain", "own"):
        layers = select_layers(arms[label].model).values()
        expected = np.mean([group_coherence(as_matrix(layer.weight), 2) for layer in layers], axis=0)
        assert table.loc[label, ["within", "across"]].tolist() == pytest.approx(expected.tolist())
        assert table.loc[label, "first_largest"] == coherence(arms[label].model.features[0][0].weight)["max"]


def test_kernels_are_by_layer_and_arm_and_the_last_layer_has_its_number():
    arms = {"a": trained("a"), "b": trained("b", seed=1)}
    found = kernels(arms)
    assert list(found) == ["conv1", "conv2"]
    assert list(found["conv1"]) == ["a", "b"]
    assert torch.equal(found["conv2"]["b"], arms["b"].model.features[1][0].weight)
    assert not found["conv1"]["a"].requires_grad
    assert coherence(found["conv1"]["a"])["d"] == 27


def test_no_verdict_is_given_near_chance_or_without_errors():
    arms = ["plain", "Gram"] * 3
    table = pd.DataFrame({"condition": list("aabbcc"), "arm": arms, "chance": 10.0, "mean": [19, 50, 21, 9, 100, 99]})
    table["verdict"] = ["baseline", "better"] * 3
    assert experiments.judged(table).verdict.tolist() == [
        "baseline", "not judged: near chance", "baseline", "better", "baseline", "not judged: no errors"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "asked", "batch", "found"), [(240, 400, 64, 240), (1000, 400, 64, 400), (90, 0, 64, 90)]
)
def test_strengths_are_tuned_on_what_there_is(count, asked, batch, found):
    train, design = images(count), SimpleNamespace(tuning_count=asked)
    assert experiments.tuned_on(train, experiments.Settings(1, batch), design, [1.0, 3.0]) == found


@pytest.mark.parametrize(("count", "asked"), [(79, 0), (400, 79)])
def test_too_few_images_to_tune_on_are_refused_before_anything_trains(count, asked):
    with pytest.raises(DataError, match="tuned on 79 of them less a fifth.*batch_size to 63 or less"):
        experiments.tuned_on(images(count), experiments.Settings(1, 64), SimpleNamespace(tuning_count=asked), [1, 3])


DESIGN = {"small_count": 64, "vae_epochs": 1, "vae_count": 32, "packing_ratios": [0.5], "packing_dimension": 16,
          "cost_models": ["vanilla"]}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "groups", "message"),
    [
        ({}, [2], ""),
        ({"small_count": 63}, [2], r"63 images do not fill a batch of 64 \(small_count=63\)"),
        ({"vae_count": 31}, [2], "31 images do not fill a batch of 32 .*vae_count=31"),
        ({"vae_count": 0, "vae_epochs": 0}, [2], ""),
        ({"packing_ratios": [1.0, 0.9]}, [2], "packing_ratios: 0.9 x 16 dimensions are 14 vectors.*4 equal groups"),
        ({"packing_ratios": [0.25]}, [2], "are 4 vectors"),
        ({"cost_models": ["vanila"]}, [2], "cost_models: vanila is unknown; choose from vanilla, resnet18"),
        ({}, [], r"groups=\[\]: expected"),
        ({}, [1, 2], r"groups=\[1, 2\]: expected"),
    ],
)
def test_what_would_stop_the_notebook_later_is_told_at_its_start(changes, groups, message):
    design = SimpleNamespace(**DESIGN | changes)
    asked = (images(design.small_count), experiments.Settings(1, 64), design, groups)
    with pytest.raises(DataError, match=message) if message else nullcontext():
        experiments.check(*asked)


@pytest.mark.parametrize("profile", parameters.profiles())
def test_no_profile_stops_there(profile):
    values = parameters.resolve("03_corregularization", profile)
    small = images(min(values["small_count"] or 5000, values["train_count"] or 5000))
    settings = experiments.Settings(values["epochs"], values["batch_size"])
    experiments.check(small, settings, SimpleNamespace(**values), values["groups"])


def test_images_that_would_vanish_are_refused():
    small = images(64)
    small = replace(small, pixels=small.pixels[:, :, :6, :6])
    with pytest.raises(DataError, match=r"8 px or more, and .* has \(6, 6\)\. Give size=32"):
        experiments.check(small, experiments.Settings(1, 64), SimpleNamespace(**DESIGN), [2])


def test_one_factor_takes_any_images_and_none_is_refused():
    train, settings, design = images(70), experiments.Settings(1, 64), SimpleNamespace(tuning_count=0)
    assert experiments.tuned_on(train, settings, design, [1.0]) == 70
    for grid in ([], [0.0, 1.0]):
        with pytest.raises(DataError, match="strength_grid=.*above 0"):
            experiments.tuned_on(train, settings, design, grid)


def test_two_classes_are_judged_where_they_are_told_apart():
    rows = pd.DataFrame({"condition": "small set", "chance": 50.0, "arm": ["plain", "Gram"] * 3,
                         "seed": [0, 0, 1, 1, 2, 2], "accuracy": [95.0, 97.0, 94.8, 97.1, 95.1, 96.9]})  # fmt: skip
    assert experiments.accuracies(rows).verdict.tolist() == ["baseline", "better"]
    rows["accuracy"] -= 40
    assert experiments.accuracies(rows).verdict.tolist() == ["baseline", "not judged: near chance"]


def test_little_data_fill_a_batch():
    train = images(240)
    design = SimpleNamespace(reduced_share=0.25, label_noise=0.4, resnet_epochs=0, reduced_epochs=3)
    settings = experiments.Settings(1, 64)
    found = experiments.conditions(train, train, train, settings, settings, design, seed=0)
    assert len(found["little data"][0]) == 64 and "ResNet-18" not in found


def test_label_noise_and_no_augmentation_differ_from_little_data_in_one_respect_each():
    train, settings = images(240), experiments.Settings(1, 32)
    design = SimpleNamespace(reduced_share=0.5, label_noise=0.4, resnet_epochs=0, reduced_epochs=3)
    found = experiments.conditions(train, train, train, settings, settings, design, seed=0)
    (little, _, often), (noisy, _, noise), (bare, _, none) = (
        found[name] for name in ("little data", "label noise", "no augmentation")
    )
    assert (often.epochs, often.score_every) == (3, 0) and found["small set"][2] == settings
    assert noise == often and torch.equal(noisy.pixels, little.pixels)
    assert (noisy.labels != little.labels).sum() == 48  # two fifths of 120
    assert none == replace(often, augment=False) and bare is little


def test_resnet_is_a_condition_where_it_has_epochs():
    train = images(32)
    design = SimpleNamespace(reduced_share=0.5, label_noise=0.4, resnet_epochs=1, reduced_epochs=3)
    settings = experiments.Settings(1, 32)
    found = experiments.conditions(train, train, train, settings, settings, design, seed=0)
    only = {"ResNet-18": found["ResNet-18"]}
    table = experiments.accuracy_table([gram("Gram", 0.1)], only, {}, seed=0)
    assert table.condition.tolist() == ["ResNet-18"] and table.images.tolist() == [32]
    assert table.accuracy.between(0, 100).all()


def test_lengths_and_angles_are_told_apart():
    whole = trained("as it is")
    longer = trained("longer")
    for module in longer.model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data *= 3
    found = experiments.length_and_angle({"as it is": whole, "longer": longer}, images(), images(), 0.5, seed=4)
    one, other = (found[found.arm == label].iloc[0] for label in ("as it is", "longer"))
    assert other.norm == pytest.approx(3 * one.norm) and other.norm_sd == pytest.approx(3 * one.norm_sd)
    assert other.rms == pytest.approx(one.rms) and other.effective_rank == pytest.approx(one.effective_rank)
    assert one.accuracy == 100 * score(whole.model, images())[1]
    assert one.pruned == 100 * score(prune(whole.model, 0.5, images()), images())[1] and (found.seed == 4).all()
    pruned = pruning_table({"as it is": whole}, images(), images(), [0.5], seed=4).set_index("removed").accuracy
    assert one.pruned_random == pruned["random"]
