"""One reader per format: a file becomes parts of text with their places."""
