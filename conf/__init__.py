"""The YAML configuration groups. Importing them registers the resolvers that they use."""

from segtrain.config.hydra_plugin import register_resolvers

register_resolvers()
