"""What the command answers by itself, without a configuration: one file each, with a function `main`."""
