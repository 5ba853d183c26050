"""Constitutional AI and RL from AI feedback: the method. Nothing in this package knows Ray (see ``actors/``)."""
