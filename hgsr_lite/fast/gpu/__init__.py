"""All layers in a few operators (`stacked`) or in one launch (`one_launch`, Triton)."""
