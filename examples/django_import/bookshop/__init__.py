"""A bookshop that imports CSV files in the background."""
