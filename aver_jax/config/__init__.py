"""Experiments as ml_collections configs: their fields, loading a file, overriding fields."""

from aver_jax.config.fields import base_config, described_fields
from aver_jax.config.load import check_fields, choice, load_config, parse_argument
from aver_jax.config.override import override
from aver_jax.config.values import differences, flat_fields, to_json

__all__ = [
    "base_config",
    "check_fields",
    "choice",
    "described_fields",
    "differences",
    "flat_fields",
    "load_config",
    "override",
    "parse_argument",
    "to_json",
]
