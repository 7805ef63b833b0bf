"""An experiment: a small network that compares two pictures by the backbone's maps. It adds so little to distance and
local evidence that match.py does without it; it stays here, to be measured again."""
