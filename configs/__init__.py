"""Hydra configs; `config.yaml` lists the groups, `experiment/` holds full recipes."""
