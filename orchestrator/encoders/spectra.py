"""A clip's sound to an audio feature without any model: statistics of its log-mel spectrogram, pitch and loudness.

    waveform ── frames of 32 ms every 10 ms ──► power (T, F) ──► log-mel (T, 40) ──► cepstrum and its changes ──┐
                                                   └── autocorrelation ──► pitch, voicing ── loudness ──────────┴─► over time (D,)

NumPy and SciPy alone: importable where torch is not, a few milliseconds a clip.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from orchestrator.encoders.rows import encoded
from orchestrator.errors import ConfigError
from orchestrator.seams import Json
from orchestrator.vocabulary import DecodedClip, Encoded, Floats, modality_of

WINDOW_S, HOP_S = 0.032, 0.010
BANDS, CEPSTRA = 40, 20
PITCH_HZ = (70.0, 450.0)
VOICED = 0.5  # least height of the autocorrelation's peak in a voiced frame
OCTAVE_COST = 0.03
QUIET = 10.0  # nepers of power (43 dB) below the loudest frame: what is softer is a pause, and only counts as one
LONGEST_S = 60.0  # of a longer clip, the middle

Track = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LogMelStatistics:
    """Recipe of the audio encoder that needs no download; `WIDTH` columns."""

    stream: str = "audio"

    def __post_init__(self) -> None:
        if modality_of(self.stream) != "audio":
            raise ConfigError(f"LogMelStatistics hears: its stream is 'audio' or 'audio.<name>', got {self.stream!r}")

    @property
    def reads(self) -> str:
        return "video"

    def identity(self) -> Mapping[str, Json]:
        return {"encoder": "log_mel_statistics", "version": 1}

    def load(self) -> LogMelStatistics:
        return self

    def encode(self, clips: Sequence[DecodedClip]) -> Encoded:
        """One row a clip, `(B, WIDTH)`; a clip without sound is absent."""
        rows = [statistics(clip.waveform, clip.rate_hz) if len(clip.waveform) else None for clip in clips]
        return encoded(self.stream, clips, rows, WIDTH)


def statistics(waveform: Floats, rate_hz: int) -> Track:
    """How spectrum, pitch and loudness of a waveform `(S,)` are spread over time, `(WIDTH,)`."""
    power = _power(waveform, rate_hz)  # (T, F)
    mels = np.log(power @ _mel_filters(rate_hz, power.shape[1]).T + 1e-8)  # (T, BANDS)
    cepstra = fft.dct(mels, axis=1, norm="ortho")[:, :CEPSTRA]  # (T, CEPSTRA)
    pitch, voicing = _pitch(power, rate_hz)  # (T,), (T,)
    loudness = mels.max(axis=1)
    heard = loudness > loudness.max() - QUIET  # (T,)
    voiced = heard & (voicing > VOICED)
    steps = [np.diff(track, axis=0, prepend=track[:1])[heard].std(axis=0) for track in (mels, cepstra)]
    parts = [
        *(moment(track[heard], axis=0) for track in (mels, cepstra) for moment in (np.mean, np.std)),
        *np.percentile(cepstra[heard], (10, 90), axis=0),
        *steps,
        _contour(np.log2(pitch[voiced]) if voiced.any() else np.zeros(1, np.float32)),
        *(_contour(track) for track in (loudness, loudness[heard], voicing[heard])),
        [voiced.mean(), heard.mean(), np.diff(voiced).mean() if len(voiced) > 1 else 0.0],
    ]
    return np.concatenate(parts).astype(np.float32)


def _power(waveform: Floats, rate_hz: int) -> Track:
    """Power spectrum `(T, F)` of the pre-emphasised waveform, with twice the points a window has."""
    window, hop, keep = int(WINDOW_S * rate_hz), int(HOP_S * rate_hz), int(LONGEST_S * rate_hz)
    start = max(0, (len(waveform) - keep) // 2)
    middle = np.asarray(waveform[start : start + keep], np.float32)
    padded = np.pad(middle, (0, max(0, window + hop - len(middle))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]  # (T, window)
    spectrum = fft.rfft(frames * np.hanning(window).astype(np.float32), n=fft.next_fast_len(2 * window, real=True), axis=1)
    return np.asarray(spectrum.real**2 + spectrum.imag**2, np.float32)


def _pitch(power: Track, rate_hz: int) -> tuple[Track, Track]:
    """Pitch in Hz and how periodic each frame is, in [0, 1], by the autocorrelation's highest peak in the range of voices.

    The autocorrelation is divided by the window's own, so that low voices are not put at a disadvantage (Boersma 1993, eq. 9),
    and each octave down costs a little, so that of equal peaks the highest pitch wins (eq. 24).
    """
    points = 2 * (power.shape[1] - 1)
    first, last = int(rate_hz / PITCH_HZ[1]), int(rate_hz / PITCH_HZ[0])
    window = np.hanning(int(WINDOW_S * rate_hz))
    own = fft.irfft(np.abs(fft.rfft(window, n=points)) ** 2)[: last + 1]
    correlation = fft.irfft(power, n=points, axis=1)[:, : last + 1] * (own[0] / np.maximum(own, own[0] * 0.02)).astype(np.float32)
    inside = correlation[:, first:] / np.maximum(correlation[:, :1], 1e-9)
    best = (inside - OCTAVE_COST * np.log2(np.arange(first, last + 1) / first)).argmax(axis=1)
    return np.asarray(rate_hz / (best + first), np.float32), inside[np.arange(len(best)), best].clip(0, 1)


def _contour(track: Track) -> Track:
    """One curve `(T,)` in eight numbers: mean, deviation, percentiles, slope over the clip, mean step, deviation of the steps."""
    steps = np.diff(track) if len(track) > 1 else np.zeros(1, np.float32)
    when = np.linspace(-0.5, 0.5, len(track))
    slope = 12 * float((when * (track - track.mean())).mean())
    return np.array([track.mean(), track.std(), *np.percentile(track, (5, 50, 95)), slope, np.abs(steps).mean(), steps.std()])


@functools.cache
def _mel_filters(rate_hz: int, bins: int) -> Track:
    """Triangles `(BANDS, F)` evenly spaced on the mel scale from 50 Hz to 8 kHz, or as high as the rate allows."""
    top = min(8000.0, rate_hz / 2)
    edges = 700 * np.expm1(np.linspace(np.log1p(50 / 700), np.log1p(top / 700), BANDS + 2))  # (BANDS + 2,)
    frequency = np.linspace(0, rate_hz / 2, bins)
    rising = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    return np.asarray(np.maximum(0, np.minimum(rising, falling)), np.float32)


WIDTH = len(statistics(np.zeros(1600, np.float32), 16_000))
