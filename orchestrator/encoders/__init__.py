'''Clips to features: one recipe a stream, one warm encoder a worker.

    recipe (frozen, cheap, has an identity) ── load() on a worker ──► encoder ── encode(clips) ──► Encoded (B, D)

| module | recipe | needs |
| --- | --- | --- |
| `clip` | `OpenClip`: any open_clip model; the default ships with the package | torch, open_clip |
| `emovclip` | `TunedClip`: the same with tuned prompts | torch, open_clip |
| `audio` | `SpeechModel`: HuBERT, wav2vec2, WavLM, Whisper | torch, transformers |
| `spectra` | `LogMelStatistics`: no model at all | NumPy, SciPy |
| `text` | `LanguageModel`: causal or BERT-like; `HashedNgrams`: no model at all | torch, transformers; NumPy |
| `hints` | `with_hints`: asks a language model about each line, fills `clip.hint` | openai |

One's own encoder is a frozen dataclass with four members, named by `_target_` in a config:

    """How bright the picture is and how it changes: a video encoder in thirty lines."""

    from __future__ import annotations

    from collections.abc import Mapping, Sequence
    from dataclasses import dataclass

    import numpy as np

    from orchestrator.encoders.rows import encoded
    from orchestrator.seams import Json
    from orchestrator.vocabulary import DecodedClip, Encoded


    @dataclass(frozen=True, slots=True)
    class Brightness:
        """Mean and deviation of each colour over frames and pixels."""

        stream: str = "video.brightness"  # its column; the part before the dot is its modality
        reads: str = "video"  # rows are stored by the file's bytes; "text" would store them by the words

        def identity(self) -> Mapping[str, Json]:
            return {"encoder": "brightness", "version": 1}  # whatever can change a number below

        def load(self) -> Brightness:
            return self  # nothing to load; a model would be built here, on the worker

        def encode(self, clips: Sequence[DecodedClip]) -> Encoded:
            pixels = [clip.frames.reshape(-1, 3) / 255 for clip in clips]
            rows = [np.concatenate([p.mean(axis=0), p.std(axis=0)]) if len(p) else None for p in pixels]
            return encoded(self.stream, clips, rows, 6)  # None is a clip without frames: absent, not zero
'''
