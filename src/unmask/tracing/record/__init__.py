"""Recording a forward pass: every operation, where it stands, what went in and what came out."""
