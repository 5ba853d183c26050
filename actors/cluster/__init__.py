"""What every actor needs of the cluster: placement, Ray itself, whereabouts, logs, causes of death, weights."""
