"""The matching track: the pixels of candidate pairs compared, and all evidence made one probability."""
