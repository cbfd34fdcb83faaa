"""EmoVCLIP on a cluster: labelled clips decoded once, a fold model for each frozen fold, a checkpoint that knows who saw what.

    labelled clips ─ decode tasks ─► frames/<decode fp>/<digest>.npy ─► Ray Train x workers (0: here) ─► emovclip/<fp>/
                                                                        fold by fold, each resumed mid-epoch

All workers tune one fold together: gradients are summed in an order that does not hang on their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
import torch
from torch import nn

from orchestrator.cluster.columns import from_table
from orchestrator.cluster.extract import decode_block, plan_blocks, quiet_data
from orchestrator.cluster.fit import train_on_workers
from orchestrator.encoders.clip import OpenClip, clip_tokenizer, load_clip
from orchestrator.encoders.emovclip import TunedClip, frozen_identity
from orchestrator.errors import ConfigError
from orchestrator.metrics import scores
from orchestrator.models.fold_models import RECIPE, read_fold_models, read_judged
from orchestrator.models.prompts import Tokenize
from orchestrator.reports.page import Table
from orchestrator.reports.progress import progress
from orchestrator.settings import Experiment
from orchestrator.stores.fingerprint import fingerprint
from orchestrator.training.fold_tuning import TuningTask, seal, tune_folds
from orchestrator.training.trunk import StoredArrays, store_array
from orchestrator.training.tuning_run import EpochReport
from orchestrator.training.workers import Workers
from orchestrator.vocabulary import Clip


def tuned_clip(experiment: Experiment, clips: Sequence[Clip], folds: Mapping[str, int], root: Path) -> TunedClip:
    """The experiment's video encoder with tuned prompts: found when it was tuned before, else tuned now."""
    base = experiment.encoders.get("video")
    if not isinstance(base, OpenClip) or experiment.prompts is None:
        raise ConfigError("prompts tune an open_clip encoder: set video to one (video=tiny_clip), or prompts=none")
    frames = experiment.store / "frames" / fingerprint("frames", experiment.decode.identity())
    by_digest = {clip.digest: clip for clip in clips if clip.clip_id in folds and clip.digest}
    cache_frames(list(by_digest.values()), frames, root, experiment)
    usable = [by_digest[digest] for digest in sorted(by_digest) if (frames / f"{digest}.npy").exists()]
    digests = [clip.digest for clip in usable]
    task = TuningTask(
        recipe=experiment.prompts,
        names=experiment.emotions.names,
        frames=StoredArrays(frames, digests),
        digests=digests,
        labels=np.array([clip.label for clip in usable], dtype=np.int64),
        folds=np.array([folds[clip.clip_id] for clip in usable], dtype=np.int64),
        clip=frozen_identity(base),
        seed=experiment.seed,
    )
    lesson = [digests, task.labels.tolist(), task.folds.tolist(), list(task.names), task.seed]
    key = fingerprint("emovclip", task.recipe.identity(), task.clip, experiment.decode.identity(), *lesson)
    directory = experiment.store / "emovclip" / key
    if (directory / RECIPE).is_file():
        print(f"resuming: tuned prompts {key} found", flush=True)
    else:
        config = {"task": task, "load": LoadClip(base), "directory": directory}
        train_on_workers(_tune, config, experiment.cluster, name=f"prompts-{key}", storage=experiment.store / "train")
        seal(task, directory)
    return TunedClip(checkpoint=str(directory), base=base, stream=base.stream, values=experiment.prompts.values)


def held_out_table(encoder: TunedClip) -> Table:
    """What tuning is worth on clips the models never saw, beside the frozen CLIP's zero-shot labels."""
    found = read_fold_models(Path(encoder.checkpoint))
    judged = read_judged(found.directory, found.count)
    labels = judged["labels"].numpy()
    rows = []
    for name, logits in {"zero-shot": judged["zero_shot"], "tuned": judged["tuned"]}.items():
        told = scores(labels, logits.argmax(dim=1).numpy())
        loss = torch.nn.functional.cross_entropy(logits, judged["labels"])
        rows.append((name, str(len(labels)), *(f"{told[key]:.3f}" for key in ("waf", "uar", "accuracy")), f"{loss:.3f}"))
    title = "CLIP before and after prompt tuning"
    note = "Labelled clips, faces alone, each judged by the fold model that never saw it."
    return Table(title, ("model", "clips", "WAF", "UAR", "accuracy", "cross-entropy"), rows, note)


def telling_frames(encoder: TunedClip, clip_ids: Mapping[str, str], names: Sequence[str], *, shown: int = 20) -> Table:
    """Which frames spoke for the label of clips that were held out, the most uneven first; `clip_ids` by digest."""
    found = read_fold_models(Path(encoder.checkpoint))
    judged = read_judged(found.directory, found.count)
    digests = [digest for fold in range(found.count) for digest in sorted(found.folds) if found.folds[digest] == fold]
    rows = []
    for row in judged["spread"].argsort(descending=True).tolist():
        if digests[row] in clip_ids:
            label, frames = int(judged["labels"][row]), int(judged["frames"][row])
            spoke = judged["frame_logits"][row, :frames, label]
            shares = judged["attention"][row, :frames]
            attention = " ".join(f"{share:.0%}" for share in shares.tolist()) if shares.std(correction=0) > 1e-4 else "even"
            said = " ".join(f"{logit:+.1f}" for logit in (spoke - spoke.mean()).tolist())
            rows.append((clip_ids[digests[row]], names[label], said, attention))
    note = "How far each frame's logit for the label lies above the clip's mean, and how much the last summary looks at it."
    return Table("Frames that carried the label", ("clip", "label", "frame by frame", "attention"), rows[:shown], note)


@dataclass(frozen=True, slots=True)
class LoadClip:
    """Loads the frozen CLIP where it is used, on the device there is."""

    base: OpenClip

    def __call__(self) -> tuple[nn.Module, Tokenize]:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return load_clip(self.base.model, self.base.weights).to(device), clip_tokenizer(self.base.model, self.base.weights)


def cache_frames(clips: Sequence[Clip], directory: Path, root: Path, experiment: Experiment) -> None:
    """Decode what is missing of the labelled clips' frames into one file a clip; a clip that cannot be decoded is left out."""
    missing = [clip for clip in clips if not (directory / f"{clip.digest}.npy").exists()]
    if not missing:
        return
    quiet_data()
    blocks = plan_blocks(missing, {clip.clip_id: [] for clip in missing}, experiment.cluster.clips_per_block)
    decoded = ray.data.from_arrow(blocks).map_batches(
        decode_block,
        fn_kwargs={"decode": experiment.decode, "root": str(root)},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=experiment.cluster.decode_cpus,
    )
    stored = decoded.map_batches(_store_frames, fn_kwargs={"directory": directory}, batch_size=None, batch_format="pyarrow")
    with progress(len(missing), "frames of labelled clips") as bar:
        for batch in stored.iter_batches(batch_size=None, batch_format="pyarrow"):
            bar.advance(batch.num_rows)


def _store_frames(block: pa.Table, *, directory: Path) -> pa.Table:
    for clip in from_table(block.filter(pc.is_null(block["code"]))):
        if len(clip.frames):
            store_array(directory, clip.digest, clip.frames)
    return block.select(["clip_id"])


def _tune(config: Mapping[str, Any]) -> None:
    task: TuningTask = config["task"]
    workers = Workers.here()

    def tell(fold: int, report: EpochReport) -> None:
        if workers.rank == 0 and report.judged_loss is not None:
            at = f"fold {fold + 1} of {task.count}, epoch {report.epoch + 1} of {task.recipe.epochs}"
            print(f"prompts: {at}, loss {report.loss:.3f}, held-out {report.judged_loss:.3f}", flush=True)

    tune_folds(task, config["load"], config["directory"], workers=workers, on_epoch=tell)
