"""One file a task; each has run(cfg, run_dir, overrides) -> the score that a sweep compares."""
