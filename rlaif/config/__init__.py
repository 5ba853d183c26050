"""What is asked: the schema, the files it is read from, and values that contradict each other."""
