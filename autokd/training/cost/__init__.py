"""What trainings cost on this machine: measured in seconds by running a little of each, and counted in bytes."""
