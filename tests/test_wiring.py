"""What a command line may say, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.wiring import CONFIGS, build, compose_config

CHOICES = sorted(
    f"{path.parent.name}={path.stem}" for path in CONFIGS.glob("*/*.yaml") if path.parent.name not in ("experiment", "tracking")
)
RECIPES = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as refused:
        build(compose_config(["data=toy", *overrides]))
    return str(refused.value)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_composes_and_every_key_of_it_is_one_of_its_class(recipe: str) -> None:
    assert compose_config([f"experiment={recipe}"]).emotions.names


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_or_names_the_key_that_has_no_default(choice: str) -> None:
    group, _, name = choice.partition("=")
    if ": ???" in (CONFIGS / group / f"{name}.yaml").read_text():
        assert f"say {group}." in refusal(choice)
    else:
        compose_config([choice])


def test_a_run_is_built_from_the_defaults_and_what_the_command_line_says(tmp_path: Path) -> None:
    experiment, _ = build(compose_config(["data=toy", "video=none", "fusion.modality_dropout.rate=0.4", f"store={tmp_path}"]))
    assert experiment.streams == ("audio", "text")
    assert experiment.fusion.modality_dropout.rate == 0.4
    assert experiment.store == tmp_path


def test_a_second_encoder_of_a_modality_is_a_stream_of_its_own() -> None:
    more = "more_streams={pitch: {_target_: orchestrator.encoders.audio.LogMelStatistics, stream: audio.pitch}}"
    experiment, _ = build(compose_config(["data=toy", more]))
    assert "audio.pitch" in experiment.streams


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("fusion.sedes=3", "fusion.sedes"),
        ("rounds.rounds=many", "rounds.rounds"),
        ("rounds.rounds=1.5", "rounds.rounds"),
        ("no_such_key=1", "no_such_key"),
        ("fuson.lr=1", "did you mean fusion?"),
        ("fusion=3", "Config group override must be a string"),
        ("seed=-1", "seed=-1"),
        ("name=3", "name must be str"),
        ("name=a/b", "name=a/b"),
        ("store=null", "store must be str"),
        ("hints.model=m", "say hints=... too"),
        ("teacher.labels=true", "say teacher=... too"),
        ("emotions.names=[happy]", "two different names, got ['happy'] (in emotions)"),
        ("video=no_such_encoder", "no_such_encoder"),
        ("fusion.modality_dropout.rate=1.5", "rate"),
        ("selection.policy.share.start=0", "start"),
        ("data.folds=1", "data.folds"),
        ("emotions.names=[happy]", "emotions.names"),
    ],
)
def test_a_wrong_key_type_or_value_is_refused_with_its_name(override: str, told: str) -> None:
    assert told in refusal(override)


@pytest.mark.parametrize(
    "override",
    [
        "fusion._target_=os.system",
        "video._target_=subprocess.Popen",
        "selection._target_=orchestrator.stores.artifacts.set_aside",
        "more_streams={x: {_target_: builtins.eval}}",
        "selection.policy={_target_: orchestrator.media.sandbox.os.system}",
    ],
)
def test_a_config_can_build_settings_and_recipes_of_this_project_and_nothing_else(override: str) -> None:
    assert "_target_" in refusal(override)
