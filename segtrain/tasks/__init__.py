"""One file a task; each has run(cfg, run_dir) -> the score that a sweep compares."""
