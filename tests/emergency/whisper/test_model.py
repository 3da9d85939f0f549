"""The Whisper with a head: its parts, and its equality with transformers' Whisper."""

import json
import unicodedata

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig, WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lib.data.catalog import DataError
from lib.emergency.classes import NAMES
from lib.emergency.whisper import model as whisper
from lib.emergency.whisper.model import PROMPT, SHORTEST, FrameClassifier, WhisperSize

LINES = ("살려주세요", "불이야", "가스가 새요", "저녁 뭐 먹을까")
SIZE = WhisperSize(d_model=16, encoder_layers=2, decoder_layers=2, heads=2, tokens=300)


@pytest.fixture(scope="module")
def model():
    return whisper.build(LINES, NAMES, SIZE, stack=4, hidden=8).eval()


def mels(clips=2, frames=400, seed=0):
    return torch.randn(clips, 80, frames, generator=torch.Generator().manual_seed(seed))


class TestEncoder:
    def test_equals_transformers_on_thirty_seconds(self, model):
        mel = mels(1, 3000)
        with torch.no_grad():
            wanted = model.whisper.model.encoder(mel).last_hidden_state
            torch.testing.assert_close(model.hidden(mel)[0], wanted, rtol=0, atol=1e-5)

    def test_a_short_window_equals_an_encoder_whose_table_is_as_short(self, model):
        config = WhisperConfig.from_dict(model.whisper.config.to_dict() | {"max_source_positions": 200})
        short, weights = WhisperEncoder(config).eval(), model.whisper.model.encoder.state_dict()
        short.load_state_dict(weights | {"embed_positions.weight": weights["embed_positions.weight"][:200]})
        with torch.no_grad():
            torch.testing.assert_close(model.hidden(mels())[0], short(mels()).last_hidden_state, rtol=0, atol=1e-5)

    def test_a_clip_does_not_depend_on_its_batch(self, model):
        with torch.no_grad():
            torch.testing.assert_close(model(mels(3))[:1], model(mels(3)[:1]), rtol=0, atol=1e-5)


class TestAllLayers:
    @pytest.fixture
    def several(self):
        config = WhisperConfig(
            d_model=16, encoder_layers=3, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=400, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        torch.manual_seed(0)
        tokenizer = whisper.train_tokenizer(LINES, 300)
        return whisper.EmergencyWhisper(
            WhisperForConditionalGeneration(config), tokenizer, NAMES, hidden=8, all_layers=True
        ).eval()

    def test_the_mean_of_normalised_layers(self, several):
        mel = mels(1, 3000)
        with torch.no_grad():
            several.head.layer_logits[:] = torch.tensor([0.0, 1.0, 2.0])
            theirs = several.whisper.model.encoder(mel, output_hidden_states=True).hidden_states[1:]
            last, mixed = several.hidden(mel)
            torch.testing.assert_close(last, theirs[-1], rtol=0, atol=1e-5)
            scaled = torch.stack([(one - one.mean(-1, keepdim=True)) / one.std(-1, keepdim=True, correction=0)
                                  for one in theirs])  # fmt: skip
            weights = torch.tensor([1.0, torch.e, torch.e**2]) / (1 + torch.e + torch.e**2)
            torch.testing.assert_close(mixed, (weights[:, None, None, None] * scaled).sum(0), rtol=0, atol=1e-3)

    def test_saved_and_loaded(self, several, tmp_path):
        with torch.no_grad():
            several.head.layer_logits[1] = 3.0
        several.save(tmp_path / "model")
        again = whisper.load(tmp_path / "model")
        with torch.no_grad():
            torch.testing.assert_close(again(mels()), several(mels()))

    def test_the_layers_learn_how_much_they_are_read(self, several):
        several(mels()).sum().backward()
        assert several.head.layer_logits.grad.abs().min() > 0


class TestNoSpeech:
    @pytest.fixture
    def trained(self, model):
        """A model whose tokenizer has the no-speech token, as in pretrained Whispers."""
        tokenizer = whisper.train_tokenizer(LINES, 300)
        tokenizer.add_tokens(["<|nospeech|>"], special_tokens=True)
        network = WhisperForConditionalGeneration(
            WhisperConfig.from_dict(model.whisper.config.to_dict() | {"vocab_size": len(tokenizer)})
        )
        return whisper.EmergencyWhisper(network, tokenizer, NAMES, hidden=8).eval()

    def test_a_clip_in_which_no_speech_is_likelier_than_korean_has_no_text(self, trained, monkeypatch):
        logits = torch.zeros(2, 400, len(trained.tokenizer))
        letter = trained.tokenizer.encode("불", add_special_tokens=False)[0]
        logits[:, 3:, letter] = 1.0
        logits[0, 0, trained.no_speech], logits[1, 0, trained.prompt[1]] = 2.0, 2.0
        calls = []

        def projected(states):
            calls.append(states.shape[1] if states.ndim == 3 else 0)
            first = len([n for n in calls if n == 1])
            return logits[:, 0] if states.ndim == 2 else logits[:, 2 + first : 3 + first]

        monkeypatch.setattr(trained.whisper.proj_out, "forward", projected)
        texts = trained.transcribe(torch.zeros(2, 5, 16), 2)
        assert texts[0] == "" and texts[1] != ""

    @pytest.mark.parametrize(("text", "repeats"), [("문을 열어 " * 8, True), ("불이야 불이야 불이야", False),
                                                   ("살려주세요! 누가 좀 도와주세요", False), ("", False)])  # fmt: skip
    def test_a_text_that_repeats_itself(self, text, repeats):
        assert whisper._repetitive(text) == repeats


class TestMoments:
    def test_the_source_s_head(self):
        head = FrameClassifier(768, 20)
        assert [tuple(layer.weight.shape) for layer in (head[0], head[2])] == [(512, 3072), (20, 512)]

    @pytest.mark.parametrize("stack", [1, 2, 4])
    def test_each_sees_its_own_positions(self, stack):
        head = FrameClassifier(6, 3, stack, 5)
        hidden = torch.randn(2, 12, 6, requires_grad=True)
        logits = head(hidden)
        assert logits.shape == (2, 12 // stack, 3)
        logits[0, 1].sum().backward()
        seen = hidden.grad.abs().sum(2) > 0
        assert seen[0].nonzero()[:, 0].tolist() == list(range(stack, 2 * stack)) and not seen[1].any()

    def test_positions_that_fill_no_moment_are_left_out(self):
        assert FrameClassifier(6, 3, 4, 5)(torch.zeros(1, 11, 6)).shape == (1, 2, 3)

    def test_with_all_layers_a_frame_is_judged_beside_the_mean_of_its_window(self):
        head, hidden = FrameClassifier(6, 3, 4, 5, layers=2), torch.randn(2, 11, 6)
        first, _, last = head
        frame = torch.cat([hidden[1, 4:8].flatten(), hidden[1].mean(0)])
        torch.testing.assert_close(head(hidden)[1, 1], last(torch.nn.functional.gelu(first(frame))))

    def test_seconds(self, model):
        assert model.seconds_per_moment == 0.08


class TestClips:
    def sure(self, *numbers):
        """Return nearly certain logits (1, frames, 20)."""
        return 40 * torch.eye(20)[list(numbers)][None]

    def test_the_class_heard_longest(self, model):
        assert model.clip_logits(self.sure(*[0] * 30, *[8] * 11, *[3] * 9)).argmax() == 8

    def test_its_logits_are_seconds(self, model):
        scores = model.clip_logits(self.sure(*[0] * 30, *[8] * 11, *[3] * 9))[0].exp()
        assert scores[8].item() == pytest.approx(11 * 0.08, rel=1e-4)
        assert scores[3].item() == pytest.approx(9 * 0.08, rel=1e-4)
        assert scores[0].item() == pytest.approx(SHORTEST)

    def test_silence(self, model):
        assert model.clip_logits(self.sure(*[0] * 50)).argmax() == 0
        assert model.clip_logits(self.sure(*[0] * 48, 8, 8)).argmax() == 0  # 0.16 s
        assert model.clip_logits(self.sure(*[0] * 47, 8, 8, 8)).argmax() == 8  # 0.24 s

    def test_other_classes_have_no_silence(self):
        model = whisper.build(LINES, ("dog", "rain"), SIZE, hidden=8)
        logits = 40 * torch.eye(2)[[0, 0, 0, 1, 1]][None]
        assert model.clip_logits(logits).argmax() == 0


class TestText:
    def plain(self, model, hidden, most):
        """Greedy decoding without any cache."""
        tokens = torch.tensor([model.prompt] * len(hidden))
        for _ in range(most):
            tokens = torch.cat([tokens, model.text_logits(hidden, tokens)[:, -1:].argmax(-1)], 1)
        rows = [row[len(model.prompt) :].tolist() for row in tokens]
        cut = [row[: row.index(model.end)] if model.end in row else row for row in rows]
        texts = [model.tokenizer.decode(row, skip_special_tokens=True).strip() for row in cut]
        return [unicodedata.normalize("NFC", text) for text in texts]

    @torch.no_grad()
    def test_equals_decoding_without_cache(self, model):
        torch.manual_seed(1)
        hidden = 5 * torch.randn(4, 50, 16)
        assert model.transcribe(hidden, 12) == self.plain(model, hidden, 12)

    @torch.no_grad()
    def test_a_clip_does_not_depend_on_its_batch(self, model):
        torch.manual_seed(2)
        hidden = 5 * torch.randn(3, 50, 16)
        assert model.transcribe(hidden, 8) == [model.transcribe(one[None], 8)[0] for one in hidden]

    @torch.no_grad()
    def test_hidden_states_are_looked_at_once_per_clip(self, model, monkeypatch):
        calls = []
        projection = model.whisper.model.decoder.layers[0].encoder_attn.k_proj
        hook = projection.register_forward_hook(lambda *_: calls.append(1))
        model.transcribe(torch.randn(2, 50, 16), 6)
        hook.remove()
        assert len(calls) == 1

    def test_any_text_survives_the_tokenizer(self, model):
        for text in ("살려주세요", "처음 보는 말 ABC 漢字 🔥"):
            ids = model.tokens_of([text])[0]
            assert unicodedata.normalize("NFC", model.tokenizer.decode(ids, skip_special_tokens=True)) == text

    def test_letters_are_put_together_to_syllables(self, model, monkeypatch):
        """From scratch, the decoder writes letters, but transcripts consist of syllables, as with OpenAI's models."""
        assert model.jamo
        (ids,) = model.tokens_of(["불이야"]).tolist()
        letters = iter([*ids[len(PROMPT) :], model.end])  # instead of the last layer's argmax

        def dictated(states):
            likeliest = torch.tensor(next(letters)).expand(states.shape[:2])
            return torch.nn.functional.one_hot(likeliest, len(model.tokenizer)).float()

        monkeypatch.setattr(model.whisper.proj_out, "forward", dictated)
        assert model.transcribe(torch.zeros(1, 5, 16)) == ["불이야"]
        # A repetitive text is a decoding loop if it does not end, and may be a cry for help if it does.
        monkeypatch.setattr(whisper, "REPETITIVE", 0.1)
        letters = iter([*ids[len(PROMPT) :], model.end])
        assert model.transcribe(torch.zeros(1, 5, 16)) == ["불이야"]
        letters = iter(ids[len(PROMPT) :])
        assert model.transcribe(torch.zeros(1, 5, 16), len(ids) - len(PROMPT) - 1) == [""]
        assert model.tokens_of([unicodedata.normalize("NFD", "불이야")]).tolist() == [ids]

    def test_prompt_text_end(self, model):
        rows = model.tokens_of(["불이야", ""]).tolist()
        assert all(row[:4] == model.prompt for row in rows) and len(set(model.prompt)) == 4
        assert rows[0][-1] == model.end and set(rows[1][4:]) == {model.end}
        assert model.tokenizer.convert_ids_to_tokens(model.prompt) == list(PROMPT)

    def test_too_long_a_text(self, model):
        with pytest.raises(ValueError, match="and the decoder has 64 positions.*pretrained checkpoint.*: 漢字漢字"):
            model.tokens_of(["불", "漢字" * 40])

    def test_an_end_at_once_is_an_empty_text(self, model, monkeypatch):
        monkeypatch.setattr(model, "end", int(model.text_logits(torch.zeros(1, 5, 16), torch.tensor([model.prompt]))
                                              [0, -1].argmax()))  # fmt: skip
        assert model.transcribe(torch.zeros(1, 5, 16)) == [""]


class TestOneEncoderPass:
    @torch.no_grad()
    def test_serves_moments_and_text(self, model):
        from lib.emergency.whisper.training import predict_frames

        calls = []
        hook = model.whisper.model.encoder.conv1.register_forward_hook(lambda *_: calls.append(1))
        predict_frames(model, mels(4), batch_size=2)
        hook.remove()
        assert len(calls) == 2  # batches


class TestBuilding:
    def test_same_seed_same_model(self, model):
        assert whisper.build(LINES, NAMES, SIZE, stack=4, hidden=8).digest() == model.digest()
        assert whisper.build(LINES, NAMES, SIZE, stack=4, hidden=8, seed=1).digest() != model.digest()

    def test_leaves_the_random_state_alone(self):
        torch.manual_seed(5)
        wanted = torch.rand(1)
        torch.manual_seed(5)
        whisper.build(LINES, NAMES, SIZE, hidden=8)
        assert torch.equal(torch.rand(1), wanted)

    def test_position_do_not_drown_the_sound(self, model):
        """With 0.02, the standard deviation for large models, positions would be a hundred times as large."""
        with torch.no_grad():
            encoder = whisper.build(LINES, NAMES, WhisperSize()).whisper.model.encoder
            sound = torch.nn.functional.gelu(encoder.conv2(torch.nn.functional.gelu(encoder.conv1(mels()))))
        assert 0.1 < sound.std() / encoder.embed_positions.weight[:200].std() < 10


class TestFolders:
    def test_save_and_load(self, model, tmp_path):
        model.save(tmp_path / "model")
        found = whisper.load(tmp_path / "model")
        assert found.digest() == model.digest() and found.classes == model.classes
        with torch.no_grad():
            assert torch.equal(found(mels()), model(mels()))
        assert found.tokens_of(["가스가 새요"]).tolist() == model.tokens_of(["가스가 새요"]).tolist()
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        assert found.jamo and whisper.from_checkpoint(tmp_path / "model", NAMES).jamo

    def test_saving_replaces_the_model_before(self, model, tmp_path):
        model.save(tmp_path / "model")
        other = whisper.build(LINES, NAMES, SIZE, stack=2, hidden=8, seed=3)
        other.save(tmp_path / "model")
        assert whisper.load(tmp_path / "model").digest() == other.digest()

    def test_nothing_there(self, tmp_path):
        with pytest.raises(DataError, match="There is no .*nothing.*Notebook 04 writes it"):
            whisper.load(tmp_path / "nothing")

    @pytest.mark.parametrize("name", ["head.json", "head.safetensors", "model.safetensors", "tokenizer.json"])
    def test_damaged(self, model, tmp_path, name):
        model.save(tmp_path / "model")
        path = tmp_path / "model" / name
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(DataError, match=r"damaged .*run notebook 04 again"):
            whisper.load(tmp_path / "model")

    def test_weights_that_are_missing(self, model, tmp_path):
        model.save(tmp_path / "model")
        path = tmp_path / "model" / "model.safetensors"
        weights = load_file(path)
        del weights["model.encoder.layers.0.fc1.weight"]
        save_file(weights, path, {"format": "pt"})
        with pytest.raises(DataError, match="damaged .*1 weights are missing.*run notebook 04 again"):
            whisper.load(tmp_path / "model")

    def test_after_a_failed_save_the_model_before_is_still_there(self, model, tmp_path, monkeypatch):
        model.save(tmp_path / "model")
        with monkeypatch.context() as patch:
            patch.setattr(json, "dumps", lambda *_, **__: (_ for _ in ()).throw(OSError("No space left on device")))
            with pytest.raises(OSError, match="No space left on device"):
                whisper.build(LINES, NAMES, SIZE, seed=3).save(tmp_path / "model")
        assert whisper.load(tmp_path / "model").digest() == model.digest()
        model.save(tmp_path / "model")
        assert [path.name for path in tmp_path.iterdir()] == ["model"]


class TestCheckpoints:
    """Checkpoints in the hub's format, written to a local folder: no network is used."""

    def test_weights_and_tokens_are_the_checkpoint_s(self, tmp_path):
        torch.manual_seed(0)
        made = whisper.build(LINES, NAMES, SIZE)
        made.whisper.save_pretrained(tmp_path)
        made.tokenizer.save_pretrained(tmp_path)
        found = whisper.from_checkpoint(tmp_path, ("dog", "rain"), stack=2, hidden=8).eval()
        theirs = WhisperForConditionalGeneration.from_pretrained(tmp_path).eval()
        with torch.no_grad():
            wanted = theirs.model.encoder(mels(1, 3000)).last_hidden_state
            torch.testing.assert_close(found.hidden(mels(1, 3000))[0], wanted, rtol=0, atol=1e-5)
            assert found(mels()).shape == (2, 100, 2)
        assert found.prompt == made.prompt and found.end == made.end

    def test_adapters_alone_are_told(self, tmp_path):
        (tmp_path / "adapter_config.json").write_text("{}")
        with pytest.raises(DataError, match="could not be loaded .it holds adapters of a model.*merge_and_unload"):
            whisper.from_checkpoint(tmp_path, NAMES)

    def test_the_folder_of_a_trainer_s_checkpoints(self, tmp_path):
        made = whisper.build(LINES, NAMES, SIZE)
        made.whisper.save_pretrained(tmp_path / "checkpoint-500")
        with pytest.raises(DataError, match="It holds the folders of models checkpoint-500: name one of them"):
            whisper.from_checkpoint(tmp_path, NAMES)

    def test_neither_a_folder_nor_a_network(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(DataError, match=r"checkpoint '.*nowhere' could not be loaded .*openai/whisper-small"):
            whisper.from_checkpoint(str(tmp_path / "nowhere"), NAMES)

    def test_a_name_without_an_owner_is_a_folder_or_openai_s(self, tmp_path, monkeypatch):
        asked = []
        monkeypatch.setattr(
            whisper.WhisperForConditionalGeneration,
            "from_pretrained",
            lambda name, **_: asked.append(name) or (_ for _ in ()).throw(OSError("no network")),
        )
        monkeypatch.setenv("DATA_ROOT", str(tmp_path))
        with pytest.raises(DataError, match="'openai/whisper-base' could not be loaded .*no network"):
            whisper.from_checkpoint("whisper-base", NAMES)
        (tmp_path / "whisper-base").mkdir()
        with pytest.raises(DataError, match="no network"):
            whisper.from_checkpoint("whisper-base", NAMES)
        assert asked == ["openai/whisper-base", tmp_path / "whisper-base"]

    @pytest.fixture
    def folder(self, tmp_path):
        """A complete checkpoint."""
        made = whisper.build(LINES, NAMES, SIZE)
        made.whisper.save_pretrained(tmp_path)
        made.tokenizer.save_pretrained(tmp_path)
        return tmp_path

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("form", ["one", "shards", "bin", "bin shards"])
    def test_forms_of_weights(self, folder, form, dtype):
        """As written by save_pretrained, for large models and by older versions; all are loaded in float32."""
        weights = {name: weight.to(dtype) for name, weight in load_file(folder / "model.safetensors").items()}
        whole = "pytorch_model.bin" if "bin" in form else "model.safetensors"
        save = torch.save if "bin" in form else lambda some, path: save_file(some, path, {"format": "pt"})
        (folder / "model.safetensors").unlink()
        if "shards" in form:
            names = sorted(weights)
            parts, stem, end = [names[::2], names[1::2]], *whole.split(".")
            files = [f"{stem}-0000{number}-of-00002.{end}" for number in (1, 2)]
            for part, file in zip(parts, files, strict=True):
                save({name: weights[name] for name in part}, folder / file)
            index = {name: file for part, file in zip(parts, files, strict=True) for name in part}
            (folder / f"{whole}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
        else:
            save(weights, folder / whole)
        found = whisper.from_checkpoint(folder, NAMES)
        state = found.whisper.state_dict()
        assert {value.dtype for value in found.state_dict().values()} == {torch.float32}
        assert all(torch.equal(state[name], weight.float()) for name, weight in weights.items())

    def test_a_missing_shard(self, folder):
        made = WhisperForConditionalGeneration.from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        made.save_pretrained(folder, max_shard_size="20KB")
        next(iter(sorted(folder.glob("model-*.safetensors")))).unlink()
        with pytest.raises(DataError, match="could not be loaded"):
            whisper.from_checkpoint(folder, NAMES)

    @pytest.mark.parametrize(("generation", "features"), [
        (None, None), ("{}", '{"feature_size": 80}'), ("{", "{"),
        ('{"forced_decoder_ids": [[1, 50259], [2, 50359]]}', '{"feature_size": 128}'),
        ('{"suppress_tokens": [], "is_multilingual": true}', '{"feature_size": 80}'),
    ])  # fmt: skip
    def test_files_that_are_not_asked(self, folder, tmp_path_factory, generation, features):
        """Decoding and features are this study's own, so these files are ignored; the model can still be saved."""
        for name, content in (("generation_config.json", generation), ("preprocessor_config.json", features)):
            (folder / name).unlink(missing_ok=True)
            if content is not None:
                (folder / name).write_text(content)
        found = whisper.from_checkpoint(folder, NAMES).eval()
        target = tmp_path_factory.mktemp("kept") / "model"
        found.save(target)
        again = whisper.load(target)
        with torch.no_grad():
            assert again.digest() == found.digest() and again.transcribe(again.hidden(mels())[0]) is not None

    @pytest.mark.parametrize("kept", ["slow", "fast", "both"])
    def test_files_of_tokens(self, folder, kept):
        """Older versions write vocab.json and merges.txt, newer ones tokenizer.json."""
        wanted = whisper.from_checkpoint(folder, NAMES).tokens_of(LINES).tolist()
        bpe = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        if kept != "fast":
            (folder / "vocab.json").write_text(json.dumps(bpe["model"]["vocab"]), encoding="utf-8")
            merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in bpe["model"]["merges"]]
            (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
            added = {token["content"]: token["id"] for token in bpe["added_tokens"]}
            (folder / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")
        if kept == "slow":
            (folder / "tokenizer.json").unlink()
        assert whisper.from_checkpoint(folder, NAMES).tokens_of(LINES).tolist() == wanted

    def test_home(self, folder, monkeypatch):
        monkeypatch.setenv("HOME", str(folder.parent))
        assert whisper.from_checkpoint(f"~/{folder.name}", NAMES).mels == 80
        with pytest.raises(DataError, match="'~/plain' could not be loaded"):
            whisper.from_checkpoint("~/plain", NAMES)

    def test_below_the_data(self, folder, monkeypatch, tmp_path):
        monkeypatch.setenv("DATA_ROOT", str(folder.parent))
        monkeypatch.chdir("/")
        assert whisper.from_checkpoint(folder.name, NAMES).mels == 80

    def test_a_trainer_s_folder_without_tokenizer(self, folder):
        for path in folder.iterdir():
            if path.name not in ("config.json", "generation_config.json", "model.safetensors"):
                path.unlink()
        with pytest.raises(DataError, match=r"tokenizer has no .*startoftranscript.*save_pretrained"):
            whisper.from_checkpoint(folder, NAMES)

    def test_english_only(self, folder):
        for path in folder.glob("*token*"):
            path.write_text(path.read_text(encoding="utf-8").replace("<|ko|>", "<|xx|>"), encoding="utf-8")
        with pytest.raises(DataError, match=r"tokenizer has no <\|ko\|>.*for English alone \(\.en\).*multilingual"):
            whisper.from_checkpoint(folder, NAMES)

    def test_half_a_model(self, folder):
        weights = load_file(folder / "model.safetensors")
        dropped = next(name for name in weights if "encoder.layers" in name)
        left = {name: weight for name, weight in weights.items() if name != dropped}
        save_file(left, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(DataError, match=f"1 weights are missing.*{dropped}"):
            whisper.from_checkpoint(folder, NAMES)

    def test_other_mel_bands(self, folder):
        config = WhisperConfig.from_pretrained(folder, num_mel_bins=128)
        WhisperForConditionalGeneration(config).save_pretrained(folder)
        found = whisper.from_checkpoint(folder, NAMES)
        assert found.mels == 128 and found(torch.zeros(1, 128, 400)).shape == (1, 50, 20)
