"""A corpus as it was published, to a manifest. Nothing is copied: paths start from the corpus's own folder.

    python -m jobs.import_manifest job.corpus=mer2024 job.folder=/data/mer2024-dataset data.manifest=mer2024.csv
    python -m jobs.import_manifest job.corpus=mertools job.folder=/data/mer2024-dataset-process data.manifest=mer2024.csv
    python -m jobs.import_manifest job.corpus=ravdess job.folder=/data/RAVDESS data.manifest=ravdess.csv
    python -m jobs.import_manifest job.corpus=folders job.folder=/data/clips data.manifest=clips.csv
`folders` reads <class>/*.mp4 as labelled clips, unlabeled/ as the pool and test/<class>/ as the test split.
"""

from collections import Counter
from pathlib import Path

from jobs.launch import Command, launch
from orchestrator.errors import ConfigError
from orchestrator.media.importers import read_corpus, write_manifest
from orchestrator.stores.mertools import read_labels


def main(command: Command) -> None:
    job, data = command.job, command.experiment.data
    if not job.corpus or not job.folder or not data.manifest:
        raise ConfigError("say job.corpus=mer2024 (mertools, ravdess, folders) job.folder=/data/corpus data.manifest=clips.csv")
    folder = Path(job.folder)
    labels = read_labels(folder / "label-6way.npz").get("train_corpus", {}) if job.corpus == "mertools" else {}
    rows = read_corpus(job.corpus, folder, language=job.language, candidates=job.candidates, labels=labels)
    path = write_manifest(data.manifest, rows)
    told = ", ".join(f"{count} {split}" for split, count in Counter(row["split"] for row in rows).items())
    print(f"{path}: {told}; use it with data.manifest={data.manifest} data.root={job.folder}")


if __name__ == "__main__":
    launch(main, __doc__)
