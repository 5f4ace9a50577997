"""The optimisers, which change the weights in each step."""
