"""Dialogues as people store them: messages, transcripts, rendered templates, and text that holds any of them."""
