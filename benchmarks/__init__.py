"""wippy_queue and its peers side by side."""
