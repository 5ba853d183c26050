"""In which words a model is asked, and how words become tokens."""
