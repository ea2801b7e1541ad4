"""The pictures: heads, faces and what surrounds them, drawn frame by frame."""
