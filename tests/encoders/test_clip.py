from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file

from orchestrator.encoders.clip import (
    TINY,
    OpenClip,
    class_texts,
    clip_tokenizer,
    frame_settings,
    load_clip,
    preprocess_frames,
    zero_shot,
)
from orchestrator.encoders.tiny_clip.train import draw_faces
from orchestrator.errors import ConfigError, ModelUnavailable
from tests.encoders.conftest import MakeClip


@pytest.mark.parametrize("shape", [(112, 112), (113, 200), (240, 135), (48, 48), (20, 31)])
def test_frame_embeddings_are_open_clips_own(shape: tuple[int, int]) -> None:
    model = load_clip()
    frames = np.random.default_rng(0).integers(0, 256, (3, *shape, 3), dtype=np.uint8)
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    theirs = torch.stack([transform(Image.fromarray(frame)) for frame in frames])
    ours = preprocess_frames(frames, *frame_settings(model))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    with torch.inference_mode():
        cosine = (model.encode_image(ours, normalize=True) * model.encode_image(theirs, normalize=True)).sum(dim=1)
    assert cosine.min() >= 0.9999


def test_a_clip_feature_is_the_mean_of_its_normalised_frames(make_clip: MakeClip) -> None:
    encoder = OpenClip().load()
    clip = make_clip("a", frames=4)
    model = load_clip()
    with torch.inference_mode():
        frames = model.encode_image(preprocess_frames(clip.frames, *frame_settings(model)))  # (T, D)
    by_hand = (frames / frames.norm(dim=1, keepdim=True)).mean(dim=0).numpy()
    np.testing.assert_allclose(encoder.encode([clip]).values[0], by_hand, atol=1e-6)


def test_a_clip_does_not_feel_its_neighbours_and_may_lack_frames(make_clip: MakeClip) -> None:
    encoder = OpenClip().load()
    clips = [make_clip("a", frames=2), make_clip("blind", frames=0), make_clip("b", frames=5), make_clip("c", frames=2)]
    together = encoder.encode(clips)
    assert together.present.tolist() == [True, False, True, True]
    assert not together.values[1].any()
    for clip, row in zip(clips, together.values, strict=True):
        np.testing.assert_array_equal(encoder.encode([clip]).values[0], row)


def test_the_shipped_model_reads_the_mood_of_people_it_never_saw() -> None:
    faces, moods = draw_faces(150, people=20, seed=77)
    model = load_clip()
    with torch.inference_mode():
        features = model.encode_image(preprocess_frames(faces, *frame_settings(model)), normalize=True).numpy()
    names = ("neutral", "angry", "happy", "sad", "worried", "surprise")
    texts = class_texts(model, clip_tokenizer(), [f"a person who looks {name}" for name in names])
    assert (zero_shot(features, texts).argmax(axis=1) == moods).mean() > 0.75


def test_the_shipped_model_is_small_and_ordinary() -> None:
    assert (Path(TINY) / "open_clip_model.safetensors").stat().st_size <= 3_000_000
    theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{TINY}")
    ours = load_clip()
    assert all(torch.equal(weight, ours.state_dict()[name]) for name, weight in theirs.state_dict().items())


def test_any_configuration_file_with_its_weights_will_do(tmp_path: Path, make_clip: MakeClip) -> None:
    config = json.loads((Path(TINY) / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "mine.json").write_text(json.dumps(config | {"embed_dim": 24}))
    with pytest.raises(ModelUnavailable, match=r"mine\.safetensors"):
        OpenClip(model=str(tmp_path)).load()
    save_file(load_clip(str(tmp_path / "mine.json"), "random").state_dict(), tmp_path / "mine.safetensors")
    from_folder, from_file = OpenClip(model=str(tmp_path)), OpenClip(model=str(tmp_path / "mine.json"))
    assert from_folder.identity() == from_file.identity() != OpenClip().identity()
    assert from_folder.load().encode([make_clip("a")]).values.shape == (1, 24)
    assert clip_tokenizer(str(tmp_path))(["a face"]).shape == (1, 32)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    weights = load_file(Path(TINY) / "open_clip_model.safetensors")
    save_file({name: weight for name, weight in weights.items() if "ln_post" not in name}, tmp_path / "w.safetensors")
    with pytest.raises(ModelUnavailable, match=r"visual\.ln_post"):
        OpenClip(weights=str(tmp_path / "w.safetensors")).load()


def test_a_model_that_cannot_be_had_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for recipe, said in [
        (OpenClip(model=f"{tmp_path}/typo"), "nothing at"),
        (OpenClip(model="ViT-B-32"), "set weights to"),
        (OpenClip(model="ViT-B-32", weights="no_such_tag"), "laion2b_s34b_b79k"),
        (OpenClip(model="ViT-B-32", weights="laion2b_s34b_b79k"), "hf download laion/CLIP"),
        (OpenClip(model="ViT-B-33", weights="random"), "open_clip does not know it"),
    ]:
        with pytest.raises(ModelUnavailable, match=said):
            recipe.load()


def test_a_recipe_travels_and_says_what_decides_its_features() -> None:
    recipe = OpenClip(stream="video.tiny", precision="bfloat16")
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    assert recipe.identity() != OpenClip().identity()
    assert OpenClip(stream="video.tiny").identity() == OpenClip().identity()
    with pytest.raises(ConfigError, match="stream"):
        OpenClip(stream="audio")
