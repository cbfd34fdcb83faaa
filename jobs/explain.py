"""Why a clip got its pseudo-label, or did not, round by round; without clip=, where a human should look next.

python -m jobs.explain experiment=toy clip=toy-0042
python -m jobs.explain experiment=toy
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.launch import launch_reader
from orchestrator.cluster.explain import explain_clip, show_attention
from orchestrator.stores.runs import SETTINGS, find_run, read_about


def main(settings: Mapping[str, Any]) -> None:
    run = find_run(Path(settings["store"]).expanduser(), settings)
    clip = settings["job"]["clip"]
    if clip is None:
        show_attention(run)
    else:
        explain_clip(run, str(clip), read_about(run, SETTINGS)["emotions"]["names"])


if __name__ == "__main__":
    launch_reader(main, __doc__)
