"""One file a task; its run(cfg, run_dir) returns the score that a sweep compares, which train.monitor names."""
