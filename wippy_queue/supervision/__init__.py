"""Starting the parts of a runtime, again after a failure, and stopping them."""
