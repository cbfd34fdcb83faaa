"""Structured configs for what has no class of its own, and `Experiment`, the whole of a run as objects.

`wiring` turns configs/*.yaml into an `Experiment`; everything above takes it or its parts. What decides the bytes of a result
is identity; what stands in `ClusterSettings` and `TrackingSettings` is execution and may change between two runs of one result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from orchestrator.errors import ConfigError
from orchestrator.media.decoding import DecodeSettings
from orchestrator.rounds.mixing import Mixing
from orchestrator.rounds.self_training import RoundPlan
from orchestrator.seams import EncoderRecipe, SelectionPolicy, Teacher
from orchestrator.vocabulary import MODALITIES, Emotions, Split

if TYPE_CHECKING:
    from orchestrator.encoders.asking import HintSettings
    from orchestrator.training.ensemble import FusionRecipe
    from orchestrator.training.prompts import PromptRecipe


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Which clips. A manifest of one's own, or a drawn toy corpus when `toy_clips` is not 0.

    - `root`: folder that paths in the manifest start from, and that they may not leave; the manifest's own by default.
    - `truth`: CSV with `clip_id,label` for the unlabelled clips, read by the report alone, to show the precision of
      pseudo-labels. Never needed.
    - `max_rejected`: share of clips that may be unusable before the run stops.
    - `folds`: cross-validation folds on the labelled clips, frozen before round 0.
    - `in_fold`: let an encoder describe clips whose labels it was tuned on; only to see how far such a run deceives itself.
    - `within_speakers`: standardise features within each speaker, when the manifest names the speaker of every clip.
    """

    manifest: str | None = None
    root: str | None = None
    truth: str | None = None
    toy_clips: int = 0
    max_rejected: float = 0.05
    folds: int = 5
    in_fold: bool = False
    within_speakers: bool = True

    def __post_init__(self) -> None:
        if not self.manifest and not self.toy_clips:
            raise ConfigError("data.manifest is not set: say data.manifest=clips.csv, or experiment=toy for the drawn toy corpus")
        if not 0 <= self.max_rejected <= 1:
            raise ConfigError(f"data.max_rejected is a share in [0, 1], got {self.max_rejected}")
        if self.folds < 2:
            raise ConfigError(f"data.folds must be at least 2, got {self.folds}: one fold leaves nothing to judge on")


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """One actor pool. Fractions of a CPU let three of them and a decoder stand at once even on a single core."""

    min_actors: int = 1
    max_actors: int = 1
    cpus: float = 0.1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.min_actors <= self.max_actors:
            raise ConfigError(f"a pool needs 1 <= min_actors <= max_actors, got {self.min_actors} and {self.max_actors}")
        if self.cpus < 0 or self.gpus < 0:
            raise ConfigError(f"a pool's cpus and gpus must not be negative, got {self.cpus} and {self.gpus}")


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Where the work runs and how wide; nothing here changes a result.

    - `address`: of a running cluster; None joins the one a submitted job runs on, else starts a private one.
    - `cpus`: of a private cluster; None takes the machine's.
    - `fit_workers`: Ray Train workers of a fit; 0 fits in the calling process.
    - `clips_per_block`: clips that are decoded, encoded and committed together, and at most redone after a crash.
    """

    address: str | None = None
    cpus: int | None = None
    fit_workers: int = 0
    gpus_per_fit_worker: float = 0.0
    clips_per_block: int = 16
    decode_cpus: float = 0.6
    pools: Mapping[str, PoolSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := set(self.pools) - set(MODALITIES):
            raise ConfigError(f"cluster.pools names {sorted(unknown)}; a pool belongs to one of {MODALITIES}")
        least_of = {"cpus": 1, "fit_workers": 0, "gpus_per_fit_worker": 0, "clips_per_block": 1, "decode_cpus": 0.01}
        for name, least in least_of.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise ConfigError(f"cluster.{name} must be at least {least}, got {value}")


@dataclass(frozen=True, slots=True)
class TrackingSettings:
    """MLflow. `uri` None keeps a SQLite store in the run's own directory."""

    uri: str | None = None
    experiment: str = "emotion"


@dataclass(frozen=True, slots=True)
class TeacherSettings:
    """A teacher from outside, and what its word is good for.

    - `votes`: it is one of the voices on every clip: `selection=agreement` counts it, `jobs.explain` shows it.
    - `labels`: round 1 learns from its answers instead of round 0's; from round 2 on the students teach.
    """

    speaker: Teacher
    votes: bool = True
    labels: bool = False

    def __post_init__(self) -> None:
        if not (self.votes or self.labels):
            raise ConfigError("teacher.votes and teacher.labels are both false: nobody would hear it; say teacher=none")


@dataclass(frozen=True, slots=True)
class JobSettings:
    """What single jobs read besides the experiment.

    - `retry`: decode again what was rejected before. `out`: where to write, beside the run by default; `extract` writes features
      there as MERTools keeps them, and only when asked.
    - `split`, or `videos` (a folder or one file): what `predict` speaks about. `submission`: CSV of names a challenge asks for.
      `pseudo_labels`: file for the last round's labels, as lines `name frames label`.
    - `clip`: what `explain` explains. `stop`: `status` asks the run to end after the round it is in.
    - `corpus`, `folder`, `language`, `candidates`: of `import_manifest`; the last two are the language of MER2024's transcripts,
      and the split of the clips that a submission must name.
    - `trials`, `space`: of `search`; config key to a pair of numbers (a range) or a list of choices.
    - `seeds`, `ablations`: of `ablate`; each ablation is a list of overrides by name.
    """

    retry: bool = False
    out: str | None = None
    split: str = "test"
    videos: str | None = None
    folder: str | None = None
    submission: str | None = None
    pseudo_labels: str | None = None
    stop: bool = False
    clip: str | None = None
    corpus: Literal["mer2024", "mertools", "ravdess", "folders"] | None = None
    language: Literal["chinese", "english"] = "chinese"
    candidates: Literal["unlabeled", "test"] = "unlabeled"
    trials: int = 8
    space: Mapping[str, Sequence[float | str]] = field(default_factory=dict)
    seeds: int = 3
    ablations: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.split not in tuple(Split):
            raise ConfigError(f"job.split is one of {', '.join(Split)}, got {self.split!r}")
        if self.trials < 1 or self.seeds < 1:
            raise ConfigError(f"job.trials and job.seeds must be at least 1, got {self.trials} and {self.seeds}")


@dataclass(frozen=True, slots=True)
class Experiment:
    """A whole run, as objects.

    `store` holds every artifact, and the features unless `features` says where else: a directory or an fsspec URL such as
    `s3://bucket/features`. Runs that share them encode nothing twice.
    """

    name: str
    seed: int
    store: Path
    emotions: Emotions
    data: DataSettings
    decode: DecodeSettings
    encoders: Mapping[str, EncoderRecipe]
    fusion: FusionRecipe
    selection: SelectionPolicy
    mixing: Mixing
    rounds: RoundPlan
    cluster: ClusterSettings
    tracking: TrackingSettings
    prompts: PromptRecipe | None = None
    hints: HintSettings | Teacher | None = None
    features: str | None = None
    teacher: TeacherSettings | None = None

    def __post_init__(self) -> None:
        if not self.encoders:
            raise ConfigError("no encoder is left: a run needs at least one of video, audio and text")
        deaf = [recipe.stream for recipe in self.encoders.values() if getattr(recipe, "source", None) == "hint"]
        if deaf and self.hints is None:
            raise ConfigError(f"{deaf[0]}.source=hint reads hints and hints=none gives none: say hints=openai (local, replayed)")

    @property
    def feature_store(self) -> str:
        """Where features rest."""
        return self.features or str(self.store / "features")

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(recipe.stream for recipe in self.encoders.values())
