"""Errors a user can act on. Each message names the value, the place and the remedy.

    OrchestratorError
    ├── ConfigError          a setting is wrong                                      exit 2
    ├── InputError           something the user handed over is wrong                 exit 3
    │   ├── ManifestError    rows of a manifest, all problems at once
    │   ├── ModelUnavailable weights that cannot be found or loaded
    │   └── TooManyRejected  more clips are unusable than the run allows
    ├── Undecodable          one clip cannot be decoded; becomes a `Rejected` row, never reaches the user as a traceback
    ├── DamagedArtifact      a stored file does not match its digest
    ├── ClusterFailed        Ray gave up                                             exit 5
    └── TrainingError        training cannot go on                                   exit 4
        ├── NothingAccepted  a round accepted no clip
        └── Diverged         a loss or a gradient is not finite

`ValueError` stays for bad arguments of a call. `jobs/` turn an OrchestratorError into one message and its exit code.
"""

from collections.abc import Sequence


class OrchestratorError(Exception):
    """Root of all errors whose message is meant for the user."""

    exit_code = 4


class ConfigError(OrchestratorError):
    """A setting is wrong; the message names its key."""

    exit_code = 2


class InputError(OrchestratorError):
    """Something the user handed over cannot be used."""

    exit_code = 3


class ManifestError(InputError):
    """Rows of a manifest are wrong; all problems are listed at once."""

    def __init__(self, path: str, problems: Sequence[str], *, shown: int = 20) -> None:
        listed = "\n".join(f"  {problem}" for problem in problems[:shown])
        more = f"\n  ... and {len(problems) - shown} more" if len(problems) > shown else ""
        super().__init__(f"{path} has {len(problems)} problem(s):\n{listed}{more}")
        self.problems = tuple(problems)


class ModelUnavailable(InputError):
    """Weights that cannot be found or loaded; the message says where they were looked for and what to do."""


class TooManyRejected(InputError):
    """More clips were rejected than the run allows."""


class Undecodable(OrchestratorError):
    """One clip cannot be decoded. `code` is one of the stable reason codes of `media.reasons`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail

    def __reduce__(self) -> tuple[type["Undecodable"], tuple[str, str]]:
        return type(self), (self.code, self.detail)  # it travels from the decode child to its parent


class DamagedArtifact(OrchestratorError):
    """A stored file does not match its digest, or its schema is not the one expected."""


class ClusterFailed(OrchestratorError):
    """Ray gave up: nodes were lost faster than work could be moved, or the cluster went away."""

    exit_code = 5


class TrainingError(OrchestratorError):
    """Training cannot go on."""


class NothingAccepted(TrainingError):
    """A selection policy accepted no clip at all."""


class Diverged(TrainingError):
    """A loss or a gradient is not finite."""
