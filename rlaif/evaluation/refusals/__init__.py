"""What an answer does with its request: by rules, and by rules and a judge together."""
