import pytest
import torch
from torch.distributions import Normal, kl_divergence

from lib.corregularization import disentanglement as module
from lib.corregularization import figures
from lib.corregularization.arms import gram
from lib.corregularization.disentanglement import (
    VAE,
    VaeArm,
    VaeSettings,
    divergence,
    draw_scenes,
    misfit,
    table,
    train_vae,
    traversals,
    vae_arms,
)
from lib.corregularization.losses import select_layers
from lib.forking import train_each
from lib.training import predict

SETTINGS = VaeSettings(epochs=2, batch_size=16, latents=3, width=4)


@pytest.fixture(scope="module")
def train():
    return draw_scenes(64, "train", 0)


@pytest.fixture(scope="module")
def test():
    return draw_scenes(200, "test", 0)


def test_the_divergence_is_that_of_normal_distributions():
    mean, log_variance = torch.randn(2, 5, 3, dtype=torch.float64)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(torch.zeros(()).double(), 1.0))
    assert torch.allclose(divergence(mean, log_variance), expected)


def test_the_misfit_is_a_log_likelihood_but_for_a_constant():
    images, one, other = torch.rand(3, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def exact(logits):
        return -Normal(logits.sigmoid(), module.SD).log_prob(images).sum((1, 2, 3))

    difference = exact(one) - exact(other)
    # A difference of thousands of nats in float32: rounding errors scale with the terms, not with the difference.
    assert torch.allclose(misfit(one, images) - misfit(other, images), difference, rtol=1e-4, atol=0.02)


def test_form_of_the_network():
    logits, mean, log_variance = VAE(latents=5, width=4)(torch.rand(2, 3, 16, 16))
    assert logits.shape == (2, 3, 16, 16) and mean.shape == log_variance.shape == (2, 5)
    assert len(select_layers(VAE())) == 6  # three convolutions in each half


def test_arms_of_one_seed_differ_by_their_penalty_alone(train):
    plain, without = (train_vae(VaeArm(name, 4.0, arm), train, SETTINGS, seed=1)
                      for name, arm in (("a", VaeArm("").penalty), ("b", gram("", 0.0, groups=2))))  # fmt: skip
    for one, two in zip(plain.parameters(), without.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_training_goes_on_as_if_it_had_not_been_stopped(train, tmp_path):
    arm = vae_arms(4.0, 10.0)[-1]  # with random groups
    whole = train_vae(arm, train, SETTINGS, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        saved = []
        original = module.fit_arm

        def stopped(*arguments, evaluate, **options):
            def until(epoch):
                if epoch == 2 and not saved:
                    saved.append(epoch)
                    raise KeyboardInterrupt
                return evaluate(epoch)

            return original(*arguments, evaluate=until, **options)

        patch.setattr(module, "fit_arm", stopped)
        with pytest.raises(KeyboardInterrupt):
            train_vae(arm, train, SETTINGS, seed=0, checkpoint=tmp_path / "arm")
        assert (tmp_path / "arm" / "epoch-0001").is_dir()
        resumed = train_vae(arm, train, SETTINGS, seed=0, checkpoint=tmp_path / "arm")
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)


def test_tables_and_traversals(train, test):
    arms = vae_arms(4.0, 10.0)
    trained = train_each(train_vae, arms, train=train, settings=SETTINGS, seed=0)
    rows = table(arms, trained, test, seed=0)
    assert list(rows.arm) == [*trained, module.UNTRAINED] and rows.strength.tolist() == [0, 0, 10, 10, 0]
    by = rows.set_index("arm")
    assert by.loc["beta-VAE, Gram", "rms"] < by.loc["beta-VAE", "rms"]
    measures = ["mig", "disentanglement", "completeness", "informativeness", "sap"]
    assert rows[measures].apply(lambda column: column.between(0, 1)).all(axis=None)
    shown = traversals(trained, test, count=2, steps=5)
    assert all(images.shape == (2, 5, 16, 16, 3) for images in shown.values())
    assert len(figures.traversals({name: shown[name] for name in list(shown)[:2]}).axes) == 2


def test_beta_weighs_the_divergence_and_the_most_informative_latent_is_moved(train, test):
    trained = {f"{beta:g}": train_vae(VaeArm(f"{beta:g}", beta), train, SETTINGS, seed=0) for beta in (1.0, 100.0)}
    codes = {name: predict(model.encoder, [test.pixels / 255]).chunk(2, dim=1) for name, model in trained.items()}
    nats = {name: divergence(*code) for name, code in codes.items()}
    assert nats["100"].sum() < 0.8 * nats["1"].sum()
    moved = codes["1"][0][:1].repeat(5, 1)
    moved[:, nats["1"].mean(0).argmax()] = torch.linspace(-2, 2, 5)
    wanted = predict(trained["1"].decoder, [moved]).sigmoid().permute(0, 2, 3, 1)
    shown = traversals(trained, test, count=2, steps=5)["1"][0]
    torch.testing.assert_close(torch.from_numpy(shown), wanted)
