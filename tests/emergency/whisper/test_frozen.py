"""The head on a frozen encoder."""

import numpy as np
import pytest
import torch

from lib.data.catalog import DataError
from lib.emergency.classes import NAMES
from lib.emergency.whisper import figures, frozen
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


def test_what_each_layer_is_worth():
    table = frozen.layer_table(model(), clips(60), clips(30, seed=3), seed=4)
    assert table.layer.tolist() == [1, 2, 3] and set(table.seed) == {4} and set(table.clips) == {30}
    assert table.weight.sum() == pytest.approx(100) and table.accuracy.min() > 90
    assert table.accuracy.between(table.low, table.high).all()
    figures.layers(table)
