"""What several test modules share: sample data, fakes, small detectors."""
