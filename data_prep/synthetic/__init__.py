"""The embedded corpus: rendered talking faces and voices, real media files with known truth."""
