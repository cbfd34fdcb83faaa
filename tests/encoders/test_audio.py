from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, WhisperFeatureExtractor

from orchestrator.encoders.audio import LogMelStatistics, SpeechModel
from orchestrator.encoders.spectra import statistics
from orchestrator.errors import ConfigError, ModelUnavailable
from tests.encoders.conftest import MakeClip


def test_hubert_features_are_the_sum_of_the_last_four_hidden_states(hubert: Path, make_clip: MakeClip) -> None:
    clip = make_clip("a", seconds=0.7)
    ours = SpeechModel(str(hubert)).load().encode([clip])
    normal = (clip.waveform - clip.waveform.mean()) / np.sqrt(clip.waveform.var() + 1e-7)
    with torch.inference_mode():
        states = AutoModel.from_pretrained(hubert)(torch.from_numpy(normal)[None], output_hidden_states=True).hidden_states
    by_hand = sum(states[-4:])[0].mean(dim=0).numpy()
    np.testing.assert_allclose(ours.values[0], by_hand, atol=1e-5)


def test_whisper_hears_a_window_as_long_as_the_clip(whisper: Path, make_clip: MakeClip) -> None:
    clip = make_clip("a", seconds=0.7)
    ours = SpeechModel(str(whisper), layers=(2, 3), pooling="mean+std").load().encode([clip])
    mels = WhisperFeatureExtractor()(
        clip.waveform, sampling_rate=16_000, padding="do_not_pad", return_tensors="pt"
    ).input_features
    encoder = AutoModel.from_pretrained(whisper).get_encoder()
    with torch.inference_mode():
        states = torch.nn.functional.gelu(encoder.conv2(torch.nn.functional.gelu(encoder.conv1(mels)))).permute(0, 2, 1)
        states = states + encoder.embed_positions.weight[: states.shape[1]]
        second, third = encoder.layers[1], encoder.layers[2]
        after_two = second(encoder.layers[0](states, None), None)
        by_hand = (after_two + third(after_two, None))[0].numpy()
    np.testing.assert_allclose(ours.values[0], np.concatenate([by_hand.mean(axis=0), by_hand.std(axis=0)]), atol=1e-5)


def test_a_whole_window_of_whisper_is_what_transformers_gives(whisper: Path, make_clip: MakeClip) -> None:
    """Silence up to 30 s leaves the first states of a causal-free encoder different, so compare a clip that fills its piece."""
    clip = make_clip("a", seconds=10.0)
    encoder = SpeechModel(str(whisper), layers=(0,)).load()
    mels = WhisperFeatureExtractor()(clip.waveform, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.inference_mode():
        states = AutoModel.from_pretrained(whisper).get_encoder()(mels, output_hidden_states=True).hidden_states
    first = encoder.steps([clip])[0]
    assert first.shape == (500, 16)
    np.testing.assert_allclose(first[:490], states[0][0, :490].numpy(), atol=1e-5)


@pytest.mark.parametrize("model", ["hubert", "whisper"])
def test_a_clip_does_not_feel_its_neighbours(model: str, make_clip: MakeClip, request: pytest.FixtureRequest) -> None:
    encoder = SpeechModel(str(request.getfixturevalue(model))).load()
    clips = [make_clip(name, seconds=seconds) for name, seconds in (("a", 0.9), ("b", 0.3), ("c", 0.9), ("d", 12.0))]
    together = encoder.encode(clips).values
    alone = np.concatenate([encoder.encode([clip]).values for clip in reversed(clips)])[::-1]
    np.testing.assert_array_equal(together, alone)


def test_long_sound_is_heard_in_even_pieces_of_at_most_ten_seconds(hubert: Path, make_clip: MakeClip) -> None:
    encoder = SpeechModel(str(hubert)).load()
    clip = make_clip("a", seconds=20.5)
    thirds = np.array_split(clip.waveform, 3)
    pieces = [make_clip("x", seconds=len(third) / 16_000) for third in thirds]
    for piece, third in zip(pieces, thirds, strict=True):
        piece.waveform[:] = third
    np.testing.assert_array_equal(encoder.steps([clip])[0], np.concatenate(encoder.steps(pieces)))


def test_a_clip_without_sound_is_absent_and_a_click_is_not(hubert: Path, make_clip: MakeClip) -> None:
    clips = [make_clip("silent", seconds=0.0), make_clip("click", seconds=0.001), make_clip("voice")]
    for encoder in (SpeechModel(str(hubert)).load(), LogMelStatistics().load()):
        encoded = encoder.encode(clips)
        assert encoded.present.tolist() == [False, True, True]
        assert not encoded.values[0].any()
        assert np.isfinite(encoded.values).all()


def test_another_sampling_rate_is_refused_with_the_key_to_set(hubert: Path, make_clip: MakeClip) -> None:
    clip = make_clip("a")
    other = type(clip)("a", clip.frames, clip.frame_times_s, clip.waveform, 8_000, None)
    with pytest.raises(ConfigError, match=r"decode\.rate_hz=16000"):
        SpeechModel(str(hubert)).load().encode([other])


def test_a_layer_the_model_lacks_is_refused(hubert: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[9\].*0 to 5"):
        SpeechModel(str(hubert), layers=(1, 9)).load()


def test_identity_hangs_on_weights_layers_and_pooling_but_not_on_the_path(hubert: Path, whisper: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for file in hubert.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    base = SpeechModel(str(hubert)).identity()
    assert SpeechModel(str(copy)).identity() == base
    others = [SpeechModel(str(whisper)), SpeechModel(str(hubert), layers=(1,)), SpeechModel(str(hubert), pooling="mean+std")]
    assert all(other.identity() != base for other in others)


def test_pickled_weights_are_not_opened(hubert: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((hubert / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(ModelUnavailable, match="pickled weights are not opened"):
        SpeechModel(str(tmp_path)).load()


def test_weights_that_lack_a_layer_are_refused_not_made_up(hubert: Path, tmp_path: Path) -> None:
    weights = load_file(hubert / "model.safetensors")
    save_file(
        {name: w for name, w in weights.items() if "layers.3." not in name}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((hubert / name).read_bytes())
    with pytest.raises(ModelUnavailable, match=r"lack 16 tensors \(encoder.layers.3"):
        SpeechModel(str(tmp_path)).load()


def test_code_that_comes_with_a_model_is_not_run(hubert: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((hubert / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModel": "mine.M"}}')
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        SpeechModel(str(tmp_path)).load()
    assert not (tmp_path / "ran").exists()


def tone(pitch_hz: float, loudness: float = 0.3) -> np.ndarray:
    t = np.arange(16_000) / 16_000
    return (loudness * sum(np.sin(2 * np.pi * pitch_hz * k * t) / k for k in range(1, 8))).astype(np.float32)


@pytest.mark.parametrize("pitch_hz", [90.0, 140.0, 300.0])
def test_statistics_hear_the_pitch(pitch_hz: float) -> None:
    found = statistics(tone(pitch_hz), 16_000)
    median = 40 * 3 + 20 * 5 + 3  # after the spectra, the fourth number of the tune
    assert abs(2 ** found[median] - pitch_hz) < 0.03 * pitch_hz


def test_statistics_of_a_louder_voice_differ_in_level_not_in_tune() -> None:
    voice = tone(200) + 0.01 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    soft, loud = statistics(voice * 0.1, 16_000), statistics(voice, 16_000)
    np.testing.assert_allclose(soft[220:228], loud[220:228], atol=1e-3)
    np.testing.assert_allclose(loud[:40] - soft[:40], 2 * np.log(10), atol=0.01)
