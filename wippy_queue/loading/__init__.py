"""From YAML files to entries: text, plain data with places, IDs and kinds, references."""
