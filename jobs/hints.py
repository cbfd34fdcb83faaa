"""Ask a language model for the likely emotion of each transcript. Every answer is kept: a second run asks only what is missing.

    OPENAI_API_KEY=... python -m jobs.hints data.manifest=clips.csv hints=openai hints.model=gpt-4o hints.max_requests=5000
    python -m jobs.hints data.manifest=clips.csv hints=local hints.model=Qwen/Qwen2.5-7B-Instruct
The other jobs ask by themselves when they are given the same `hints`; this one asks and does nothing else.
"""

from jobs.launch import Command, launch
from orchestrator.cluster.corpus import hinted, read_clips
from orchestrator.errors import ConfigError


def main(command: Command) -> None:
    if command.experiment.hints is None:
        raise ConfigError("nobody is asked with hints=none: say hints=openai, or hints=local for a server of your own")
    hinted(command.experiment, read_clips(command.experiment))


if __name__ == "__main__":
    launch(main, __doc__)
