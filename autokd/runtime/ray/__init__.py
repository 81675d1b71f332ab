"""Jobs on Ray workers: Ray Tune for single processes, Ray Train for trainings that several share."""
