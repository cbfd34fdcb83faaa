"""Config to objects: the only hydra import outside `jobs/`.

    command line -> compose(configs/) -> check -> instantiate -> Experiment

A config is input too: `_target_` may only name dataclasses of `orchestrator`, a key that its class does not have and a value of
the wrong type are refused with the full key before anything starts.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.errors import ConfigError
from orchestrator.vocabulary import MODALITIES

if TYPE_CHECKING:  # loading what a run is made of takes seconds, which reading about one does not need
    from orchestrator.settings import Experiment, JobSettings

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """The config of a command line, checked. Raises ConfigError naming the key."""
    config = _composed(overrides)
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ConfigError(f"{', '.join(missing)} must be set: say {missing[0]}=...")
    for where, node in _targets(config):
        _check(where, node)
    for group, node in ((str(key), config[key]) for key in config):
        if OmegaConf.is_dict(node) and node and "_target_" not in node and group != "more_streams":
            raise ConfigError(f"{group}.{next(iter(node))!s} belongs to a choice and {group}=none is none: say {group}=... too")
    return config


def plain_config(overrides: Sequence[str]) -> dict[str, Any]:
    """The config of a command line as plain containers, at once: for reading about runs, not for building one."""
    return plain(_composed(overrides))


def build(config: DictConfig) -> tuple[Experiment, JobSettings]:
    """Every object of a run, and what its job alone reads. Raises ConfigError with what a class says of its settings."""
    from orchestrator.settings import Experiment

    nodes = {str(key): node for key, node in config.items()}
    try:
        parts = {key: instantiate(node, _convert_="all") if OmegaConf.is_config(node) else node for key, node in nodes.items()}
        job = parts.pop("job")
        del parts["clip"]  # a short spelling of job.clip
        recipes = [parts.pop(modality, None) for modality in MODALITIES] + list(parts.pop("more_streams").values())
        parts["encoders"] = {recipe.stream: recipe for recipe in recipes if recipe}  # `none` is an empty node
        for optional in ("prompts", "hints", "teacher"):
            parts[optional] = parts.get(optional) or None
        if "://" in parts["store"]:
            raise ConfigError(
                f"store={parts['store']} is not a directory: models and ledgers need one; only features=URL may be one"
            )
        return Experiment(**parts | {"store": Path(parts["store"]).expanduser().resolve()}), job
    except HydraException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ConfigError):
            raise cause from None
        where = str(error).rpartition("full_key: ")[2]
        raise ConfigError(f"{cause} (in {where})" if isinstance(cause, ValueError) else str(error)) from error


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as plain containers: what a report and MLflow keep."""
    return typing.cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def _composed(overrides: Sequence[str]) -> DictConfig:
    known = [*map(str, OmegaConf.load(CONFIGS / "config.yaml")), *(path.name for path in CONFIGS.iterdir() if path.is_dir())]
    for key in (re.split(r"[.=/@\[]", override.lstrip("+~"))[0] for override in overrides):
        if key not in known:
            meant = get_close_matches(key, known, n=1)
            raise ConfigError(f"there is no key {key!r}{f': did you mean {meant[0]}?' if meant else ''}; all are in {CONFIGS}")
    try:
        with initialize_config_dir(str(CONFIGS), version_base=None):
            config = compose("config", overrides=[_reach(override) for override in overrides])
        for whole in (OverridesParser.create().parse_override(override) for override in overrides if "={" in override):
            OmegaConf.update(config, whole.key_or_group, whole.value(), merge=False, force_add=True)  # Hydra would merge it
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        told = str(error).partition("\nConfig search path")[0].replace("'++", "'")
        raise ConfigError(f"{told}\nEvery key and choice is listed in {CONFIGS}.") from error
    for key, kind in {"name": str, "store": str, "features": str | None, "seed": int}.items():
        if not _fits(config[key], kind):
            raise ConfigError(f"{key} must be {getattr(kind, '__name__', kind)}, got {config[key]!r}")
    if "/" in config.name or config.seed < 0:
        raise ConfigError(f"name must be a file name and seed not negative, got name={config.name} seed={config.seed}")
    return config


def _reach(override: str) -> str:
    """`a.b=c` may set a default its YAML does not spell out; whether the class has it is checked after composition."""
    key, _, _ = override.partition("=")
    inside = "." in key and key[0].isalpha() and "/" not in key
    return f"++{override}" if inside or key == "more_streams" else override


def _targets(node: Any, where: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if OmegaConf.is_dict(node):
        if "_target_" in node:
            yield where, node
        for key in node:
            yield from _targets(node[key], f"{where}.{key}".lstrip("."))
    elif OmegaConf.is_list(node):
        for index, item in enumerate(node):
            yield from _targets(item, f"{where}[{index}]")


def _check(where: str, node: Mapping[str, Any]) -> None:
    target = str(node["_target_"])
    module, _, name = target.rpartition(".")
    if not target.startswith("orchestrator."):
        raise ConfigError(f"{where}._target_ is {target!r}; only classes of orchestrator may be built from a config")
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}._target_ is {target!r}, which does not exist: {error}") from error
    if not is_dataclass(cls):
        raise ConfigError(f"{where}._target_ is {target!r}; only settings and recipes (dataclasses) may be built from a config")
    known = {field.name: field for field in fields(cls) if field.init}
    for key in node:
        if key == "_target_":
            continue
        if key not in known:
            raise ConfigError(f"{where}.{key} is not a setting of {name}; its settings are {', '.join(sorted(known))}")
        if not _fits(node[key], _hint(cls, str(known[key].type))):
            raise ConfigError(f"{where}.{key} must be {known[key].type}, got {node[key]!r}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a scalar of a config suits an annotation; containers and nested targets are their class's business."""
    if hint is Any:
        return True
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool, types.NoneType):
        return isinstance(value, hint)
    return OmegaConf.is_config(value)


def _hint(cls: object, annotation: str) -> Any:
    """The type behind an annotation; Any when its module imports it for the type checker alone."""
    try:
        return eval(annotation, vars(import_module(cls.__module__)))
    except NameError:
        return Any
