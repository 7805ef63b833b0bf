"""The matching track: comparison of the pixels of candidate pairs, and fusion of all evidence to one probability."""
