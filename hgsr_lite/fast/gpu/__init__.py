"""The gradient of all layers in a few operators (`stacked`) or in one launch (`one_launch`, Triton); the
proximal step by way of the CPU (`round_trip`).
"""
