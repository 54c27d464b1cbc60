"""What is audited: a callable in somebody's file or module, loaded, hashed, and a defence of ours before it."""
