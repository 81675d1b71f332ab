"""The web front: serves studies, reading through storage and report only."""
