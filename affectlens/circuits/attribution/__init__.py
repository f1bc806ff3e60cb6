"""What every neuron and head adds to its layer's emotion directions, exactly."""
