"""What one training rank does, without Ray: as a Ray Train worker or as the only rank of a process."""
