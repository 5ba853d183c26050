"""What one training rank does, without Ray: in a Ray Train worker or alone in a process."""
