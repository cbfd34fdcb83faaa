"""Train the tiny CLIP on drawn faces and captions of their mood: a few minutes on one core.

    python -m orchestrator.encoders.tiny_clip.train --out DIRECTORY

    drawn people ── light, noise, shift, blur ──► image tower ──┐
    "a person who looks furious" ─────────────► text tower ─────┴─► every caption of a face's mood is right for it

The loss is UniCL's (Yang et al. 2022, eq. 4). The people are drawn from other seeds than those of any toy corpus. Half of the
file is the table of open_clip's 49,408 tokens, so text is 16 wide and the file half precision.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from orchestrator.encoders.clip import TINY, class_texts, clip_tokenizer, frame_settings, preprocess_frames, zero_shot
from orchestrator.media.toy import Speaker, draw_face

SEED = 20_240_917
WORDS = {
    "neutral": ("neutral", "calm", "relaxed", "indifferent", "serious"),
    "angry": ("angry", "furious", "mad", "annoyed", "irritated", "disgusted"),
    "happy": ("happy", "joyful", "glad", "cheerful", "smiling", "amused"),
    "sad": ("sad", "unhappy", "sorrowful", "depressed", "hurt", "crying"),
    "worried": ("worried", "anxious", "afraid", "fearful", "nervous", "scared"),
    "surprise": ("surprise", "surprised", "amazed", "astonished", "shocked", "startled"),
}
TEMPLATES = (
    "a person who looks {}",
    "a photo of a {} person",
    "a face that shows {}",
    "someone {}",
    "the {} face of a speaker",
    "{}",
    "a video of a person who feels {}",
    "a drawing of a {} face.",
)
EMOTIONS = tuple(WORDS)


def draw_faces(count: int, people: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Faces u8 `(N, 112, 112, 3)` and their moods `(N,)`, under changing light, noise, shift and blur."""
    rng = np.random.default_rng([SEED, seed])
    speakers = [Speaker.draw(rng) for _ in range(people)]
    moods = rng.integers(len(EMOTIONS), size=count)
    faces = [
        _weathered(draw_face(speakers[rng.integers(people)], EMOTIONS[mood], rng, phase=rng.random()), rng) for mood in moods
    ]
    return np.stack(faces), moods


def _weathered(face: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    moved = np.roll(face, rng.integers(-8, 9, 2), axis=(0, 1)).astype(np.float32) * rng.uniform(0.65, 1.2)
    if rng.random() < 0.3:  # what a codec does to a small picture
        moved = (moved + np.roll(moved, 1, 0) + np.roll(moved, 1, 1) + np.roll(moved, 1, (0, 1))) / 4
    return np.clip(moved + rng.normal(0, rng.uniform(0, 10), face.shape), 0, 255).astype(np.uint8)


def captions(moods: NDArray[np.int64], rng: np.random.Generator) -> list[str]:
    """One caption a mood, its words and its frame at random."""
    return [str(rng.choice(TEMPLATES)).format(rng.choice(WORDS[EMOTIONS[mood]])) for mood in moods]


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, moods: Tensor) -> Tensor:
    """Both ways, with every pair of equal mood a right one; `images`, `texts` `(B, D)` normalised."""
    logits = scale * images @ texts.T  # (B, B)
    right = F.normalize((moods[:, None] == moods[None, :]).float(), p=1.0, dim=1)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def train(faces: Tensor, moods: NDArray[np.int64], *, epochs: int, batch: int = 128) -> nn.Module:
    """A fresh model of the shipped configuration, fitted to faces `(N, 3, S, S)` and captions of their moods."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    model: nn.Module = open_clip.create_model(f"local-dir:{TINY}", load_weights=False)
    tokenizer = clip_tokenizer(TINY, "random")
    table = [p for name, p in model.named_parameters() if name == "token_embedding.weight"]  # most of its rows are never seen
    rest = [p for name, p in model.named_parameters() if name != "token_embedding.weight"]
    optimizer = torch.optim.AdamW([{"params": rest, "weight_decay": 0.05}, {"params": table, "weight_decay": 0.0}])
    steps = epochs * (len(faces) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps, pct_start=0.1)
    for epoch in range(epochs):
        began, total = time.perf_counter(), 0.0
        for rows in np.array_split(rng.permutation(len(faces)), len(faces) // batch):
            tokens = tokenizer(captions(moods[rows], rng))
            images = model.encode_image(faces[rows], normalize=True)  # type: ignore[operator]
            texts = model.encode_text(tokens, normalize=True)  # type: ignore[operator]
            scale = model.logit_scale.exp().clamp(max=100)  # type: ignore[operator]
            loss = contrastive_loss(images, texts, scale, torch.from_numpy(moods[rows]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(
            f"epoch {epoch + 1}/{epochs}  loss {total / (len(faces) // batch):.3f}  {time.perf_counter() - began:.0f} s",
            flush=True,
        )
    return model.eval()


def main() -> None:
    """Draw, train, write `open_clip_config.json` and `open_clip_model.safetensors`, and say how good it is on unseen people."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=8_000)
    parser.add_argument("--epochs", type=int, default=15)
    args = parser.parse_args()
    settings = frame_settings(open_clip.create_model(f"local-dir:{TINY}", load_weights=False))
    faces, moods = draw_faces(args.faces, people=600, seed=1)
    model = train(preprocess_frames(faces, *settings), moods, epochs=args.epochs)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.out.resolve() != Path(TINY):
        shutil.copy(Path(TINY) / "open_clip_config.json", args.out)
    file = args.out / "open_clip_model.safetensors"
    save_file({name: weight.half().contiguous() for name, weight in model.state_dict().items()}, file)
    file.chmod(0o644)
    unseen, truth = draw_faces(1200, people=60, seed=2)
    with torch.inference_mode():
        features = model.encode_image(preprocess_frames(unseen, *settings), normalize=True).numpy()  # type: ignore[operator]
    texts = class_texts(model, clip_tokenizer(TINY, "random"), [f"a person who looks {name}" for name in EMOTIONS])
    print(f"zero-shot accuracy on 60 unseen people: {(zero_shot(features, texts).argmax(axis=1) == truth).mean():.3f}")


if __name__ == "__main__":
    main()
