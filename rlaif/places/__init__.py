"""Where files are: on this machine, in object storage or on the web. Both are listed, read and written in one way."""
