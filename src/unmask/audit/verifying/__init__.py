"""What `unmask verify` asks of a report and its evidence, in code that shares nothing with the attacks or the judge."""
