"""Products of a shop, found in clips of videos."""
