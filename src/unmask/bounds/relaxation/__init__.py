"""Linear relaxation: interval bounds and CROWN's lines through a network's operations."""
