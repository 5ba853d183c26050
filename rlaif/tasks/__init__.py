"""What runs next to an engine: critique and revision, labelling, direct reward, sampling."""
