"""In which ways an operation spoils a gradient: a file each, or one for those that share a rule."""
