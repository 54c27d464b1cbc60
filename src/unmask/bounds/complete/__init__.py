"""Complete verification of small ReLU networks: branch and bound, mixed-integer programs, linear regions."""
