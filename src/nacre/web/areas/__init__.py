"""The areas of the page, one module each."""
