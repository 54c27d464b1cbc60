"""The tracer: what each torch operation does to the gradient, where it stands, and how its backward is rewritten."""
