"""From a loss to moved weights: schedule, optimizer, update rules, weight averages, frozen parts."""
