"""The YAML configuration groups. Importing them registers the typed schema that config.yaml starts from."""

from segtrain.config.check import register

register()
