"""What an audit measures beside its verdict, which stands without it: certificates and CLEVER's estimate."""
