"""What every actor needs of the cluster: Ray itself, placement, whereabouts, logs, causes of death, weights."""
